"""Studies: one case solved many times, its errors, and the rates at which they fall."""

from mfpde.study.orders import Order, fitted_order, pairwise_orders
from mfpde.study.refinement import RefinementStudy, refinement_study
from mfpde.study.time_step import time_step_study

__all__ = ["Order", "RefinementStudy", "fitted_order", "pairwise_orders", "refinement_study", "time_step_study"]

"""Case files: TOML text, validated and turned into a problem and its solvers. Nothing in a case is ever executed."""

from mfpde.case.load import CaseFile, InputError, StudyCase, load_case, load_study

__all__ = ["CaseFile", "InputError", "StudyCase", "load_case", "load_study"]

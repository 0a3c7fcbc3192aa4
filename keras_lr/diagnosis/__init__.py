"""Find problems of a training run in its log: logs in, findings out."""

from keras_lr.diagnosis.judge import NAMES, diagnose
from keras_lr.diagnosis.result import Diagnosis, Finding

__all__ = ["NAMES", "Diagnosis", "Finding", "diagnose"]

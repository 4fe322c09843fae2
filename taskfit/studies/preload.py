"""Imported once by the fork server: what every trial needs. It must start no thread."""

import numpy
import pyarrow.parquet
import scipy.stats
import sklearn.feature_extraction.text
import sklearn.linear_model

from taskfit.models.quiet import quiet_bitsandbytes

__all__ = ["numpy", "pyarrow", "scipy", "sklearn"]

quiet_bitsandbytes()

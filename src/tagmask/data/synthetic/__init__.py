"""Synthetic data sets whose masks are known to the pixel."""

from tagmask.data.synthetic.scenes import make_cooccur as make_cooccur

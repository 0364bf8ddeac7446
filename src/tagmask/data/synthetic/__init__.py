"""Synthetic data sets whose masks are known to the pixel."""

from tagmask.data.synthetic.demo_set import begin_demo_set as begin_demo_set
from tagmask.data.synthetic.demo_set import demo_folder as demo_folder
from tagmask.data.synthetic.demo_set import make_demo_set as make_demo_set
from tagmask.data.synthetic.scenes import make_cooccur as make_cooccur

"""The works to cite for a run: the paper of its method, and tagmask."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version


@dataclass(frozen=True)
class Citation:
    """A work to cite.

    Attributes:
        text: one line for people.
        bibtex: the entry.
    """

    text: str
    bibtex: str


def _paper(key: str, names: str, title: str, venue: str, year: int, doi: str) -> Citation:
    short = f"{names.split(',')[0]} et al., {title}, {venue} {year}"
    booktitle = "IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)"
    fields = {"author": names, "title": f"{{{title}}}", "booktitle": booktitle, "year": str(year), "doi": doi}
    return Citation(short, _entry("inproceedings", key, fields))


def _entry(kind: str, key: str, fields: dict[str, str]) -> str:
    return f"@{kind}{{{key},\n" + "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items()) + "}"


PAPERS = {
    "cam": _paper(
        "zhou2016cam",
        "Zhou, Bolei and Khosla, Aditya and Lapedriza, Agata and Oliva, Aude and Torralba, Antonio",
        "Learning Deep Features for Discriminative Localization",
        "CVPR",
        2016,
        "10.1109/CVPR.2016.319",
    ),
    "seco": _paper(
        "yang2024seco",
        "Yang, Zhiwei and Fu, Kexue and Duan, Minghong and Qu, Linhao and Wang, Shuo and Song, Zhijian",
        "Separate and Conquer: Decoupling Co-occurrence via Decomposition and Representation for Weakly Supervised "
        "Semantic Segmentation",
        "CVPR",
        2024,
        "10.1109/CVPR52733.2024.00346",
    ),
    "sccam": _paper(
        "chang2020sccam",
        "Chang, Yu-Ting and Wang, Qiaosong and Hung, Wei-Chih and Piramuthu, Robinson and Tsai, Yi-Hsuan and "
        "Yang, Ming-Hsuan",
        "Weakly-Supervised Semantic Segmentation via Sub-Category Exploration",
        "CVPR",
        2020,
        "10.1109/CVPR42600.2020.00901",
    ),
    "rca": _paper(
        "zhou2022rca",
        "Zhou, Tianfei and Zhang, Meijie and Zhao, Fang and Li, Jianwu",
        "Regional Semantic Contrast and Aggregation for Weakly Supervised Semantic Segmentation",
        "CVPR",
        2022,
        "10.1109/CVPR52688.2022.00426",
    ),
}

_SOFTWARE = Citation(
    f"tagmask {version('tagmask')}: image tags in, pixel masks out",
    _entry(
        "software",
        "tagmask",
        {
            "author": "{The tagmask contributors}",
            "title": "{tagmask: image tags in, pixel masks out}",
            "version": version("tagmask"),
            "license": "Apache-2.0",
        },
    ),
)


def citations(method: str) -> tuple[Citation, ...]:
    """Return what to cite for a method, by its recipe's name: its paper, where it has one, and tagmask."""
    return (PAPERS[method], _SOFTWARE) if method in PAPERS else (_SOFTWARE,)

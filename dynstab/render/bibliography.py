"""The papers behind methods and definitions, as BibTeX."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A publication. `kind` is BibTeX's; `place` is the journal, the proceedings or the publisher."""

    key: str
    kind: str
    authors: str
    title: str
    place: str
    year: int
    volume: str = ""
    pages: str = ""
    doi: str = ""

    @property
    def text(self) -> str:
        """In one line, for people."""
        surnames = [author.split(",")[0] for author in self.authors.split(" and ")]
        names = " & ".join(surnames) if len(surnames) < 3 else f"{surnames[0]} et al."
        detail = ", ".join(filter(None, (self.place, self.volume, self.pages)))
        return f"{names} ({self.year}). {self.title}. {detail}."

    @property
    def bibtex(self) -> str:
        """One entry, title in braces so that its capitals stay."""
        place = {"article": "journal", "inproceedings": "booktitle", "incollection": "booktitle", "book": "publisher"}
        fields = {
            "author": self.authors,
            "title": f"{{{self.title}}}",
            place[self.kind]: self.place,
            "year": str(self.year),
            "volume": self.volume,
            "pages": self.pages.replace("-", "--"),
            "doi": self.doi,
        }
        lines = "".join(f",\n  {name} = {{{text}}}" for name, text in fields.items() if text)
        return f"@{self.kind}{{{self.key}{lines}\n}}"


def _article(key: str, authors: str, title: str, place: str, year: int, volume: str, pages: str, doi: str) -> Reference:
    return Reference(
        key=key, kind="article", authors=authors, title=title, place=place,
        year=year, volume=volume, pages=pages, doi=doi,
    )  # fmt: skip


def _talk(key: str, authors: str, title: str, place: str, year: int) -> Reference:
    return Reference(key=key, kind="inproceedings", authors=authors, title=title, place=place, year=year)


def _book(key: str, authors: str, title: str, place: str, year: int) -> Reference:
    return Reference(key=key, kind="book", authors=authors, title=title, place=place, year=year)


LIBRARY = {
    reference.key: reference
    for reference in (
        _article(
            "benettin1980",
            "Benettin, Giancarlo and Galgani, Luigi and Giorgilli, Antonio and Strelcyn, Jean-Marie",
            "Lyapunov characteristic exponents for smooth dynamical systems and for Hamiltonian systems; "
            "a method for computing all of them. Part 1: Theory",
            "Meccanica", 1980, "15", "9-20", "10.1007/BF02128236",
        ),
        _article(
            "geist1990", "Geist, Karlheinz and Parlitz, Ulrich and Lauterborn, Werner",
            "Comparison of different methods for computing Lyapunov exponents",
            "Progress of Theoretical Physics", 1990, "83", "875-893", "10.1143/PTP.83.875",
        ),
        _article(
            "golub1981", "Golub, Gene H. and Luk, Franklin T. and Overton, Michael L.",
            "A block Lanczos method for computing the singular values and corresponding singular vectors of a matrix",
            "ACM Transactions on Mathematical Software", 1981, "7", "149-169", "10.1145/355945.355946",
        ),
        _article(
            "hutchinson1990", "Hutchinson, Michael F.",
            "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines",
            "Communications in Statistics - Simulation and Computation", 1990, "19", "433-450",
            "10.1080/03610919008812866",
        ),
        _article(
            "halko2011", "Halko, Nathan and Martinsson, Per-Gunnar and Tropp, Joel A.",
            "Finding structure with randomness: probabilistic algorithms for constructing approximate "
            "matrix decompositions",
            "SIAM Review", 2011, "53", "217-288", "10.1137/090771806",
        ),
        _article(
            "ginelli2007",
            "Ginelli, Francesco and Poggi, Pietro and Turchi, Alessio and Chaté, Hugues and Livi, Roberto and "
            "Politi, Antonio",
            "Characterizing dynamics with covariant Lyapunov vectors",
            "Physical Review Letters", 2007, "99", "130601", "10.1103/PhysRevLett.99.130601",
        ),
        _article(
            "soderlind2006", "Söderlind, Gustaf", "The logarithmic norm. History and modern theory",
            "BIT Numerical Mathematics", 2006, "46", "631-652", "10.1007/s10543-006-0069-9",
        ),
        _article(
            "henrici1962", "Henrici, Peter",
            "Bounds for iterates, inverses, spectral variation and fields of values of non-normal matrices",
            "Numerische Mathematik", 1962, "4", "24-40", "10.1007/BF01386294",
        ),
        _article(
            "stewart1997", "Stewart, David E.",
            "A new algorithm for the SVD of a long product of matrices and the stability of products",
            "Electronic Transactions on Numerical Analysis", 1997, "5", "29-47", "",
        ),
        _article(
            "demmel1992", "Demmel, James and Veselić, Krešimir", "Jacobi's method is more accurate than QR",
            "SIAM Journal on Matrix Analysis and Applications", 1992, "13", "1204-1245", "10.1137/0613074",
        ),
        _article(
            "hanin2020", "Hanin, Boris and Nica, Mihai",
            "Products of many large random matrices and gradients in deep neural networks",
            "Communications in Mathematical Physics", 2020, "376", "287-322", "10.1007/s00220-019-03624-z",
        ),
        _article(
            "haber2017", "Haber, Eldad and Ruthotto, Lars", "Stable architectures for deep neural networks",
            "Inverse Problems", 2017, "34", "014004", "10.1088/1361-6420/aa9a90",
        ),
        Reference(
            key="kaplan1979", kind="incollection", authors="Kaplan, James L. and Yorke, James A.",
            title="Chaotic behavior of multidimensional difference equations",
            place="Functional Differential Equations and Approximation of Fixed Points",
            year=1979, pages="204-227", doi="10.1007/BFb0064319",
        ),
        _talk(
            "schoenholz2017",
            "Schoenholz, Samuel S. and Gilmer, Justin and Ganguli, Surya and Sohl-Dickstein, Jascha",
            "Deep information propagation", "International Conference on Learning Representations", 2017,
        ),
        _talk(
            "yang2017", "Yang, Ge and Schoenholz, Samuel S.",
            "Mean field residual networks: on the edge of chaos",
            "Advances in Neural Information Processing Systems", 2017,
        ),
        _talk(
            "sander2022", "Sander, Michael E. and Ablin, Pierre and Peyré, Gabriel",
            "Do residual neural networks discretize neural ordinary differential equations?",
            "Advances in Neural Information Processing Systems", 2022,
        ),
        _talk(
            "roy2007", "Roy, Olivier and Vetterli, Martin",
            "The effective rank: a measure of effective dimensionality", "European Signal Processing Conference", 2007,
        ),
        _talk(
            "dong2021", "Dong, Yihe and Cordonnier, Jean-Baptiste and Loukas, Andreas",
            "Attention is not all you need: pure attention loses rank doubly exponentially with depth",
            "International Conference on Machine Learning", 2021,
        ),
        _book(
            "trefethen2005", "Trefethen, Lloyd N. and Embree, Mark", "Spectra and pseudospectra",
            "Princeton University Press", 2005,
        ),
        _book(
            "saad2011", "Saad, Yousef", "Numerical methods for large eigenvalue problems", "SIAM", 2011,
        ),
        _book(
            "golub2013", "Golub, Gene H. and Van Loan, Charles F.", "Matrix computations",
            "Johns Hopkins University Press", 2013,
        ),
    )
}  # fmt: skip

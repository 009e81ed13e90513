"""Every architecture is measured, attacked, audited and trained, or an error says why not."""

import warnings

import pytest
import torch

from captum_robust.attr import NotDifferentiableError
from tests.architectures.jobs import JOBS
from tests.architectures.registry import ARCHITECTURES

#: What cannot be done, with a part of the error that says so.
REFUSED: dict[tuple[str, str], str] = {}

pytestmark = pytest.mark.models


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_jobs_work_or_say_why_not(name: str) -> None:
    architecture = ARCHITECTURES[name]
    pytest.importorskip(
        architecture.library, reason=f"needs {architecture.library}: the extra [models]"
    )
    for job, work in JOBS.items():
        torch.manual_seed(0)
        case = architecture.build()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if (name, job) in REFUSED:
                with pytest.raises((ValueError, NotDifferentiableError), match=REFUSED[name, job]):
                    work(case)
            else:
                work(case)

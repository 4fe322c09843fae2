"""Everything one trial cost, joined in one record: seconds, memory, tokens, operations, bytes, money."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from taskfit.costs.flops import flops
from taskfit.costs.meter import Measured
from taskfit.costs.prices import Machine, ServicePrice, money
from taskfit.errors import StudyError
from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.costs.architecture import Architecture

__all__ = ["FurtherModel", "TrialCost", "trial_cost"]


@dataclass(frozen=True)
class FurtherModel:
    """What went through another model than the trial's, such as a teacher's.

    Attributes:
        architecture: None where its family cannot be counted, or it is a service's.
        service: what its tokens cost; None where it computes on this machine.
        fit_work: while fitting.
        predict_work: while predicting the test set.
    """

    architecture: Architecture | None
    service: ServicePrice | None
    fit_work: Work
    predict_work: Work


_LATER = {"usd_further", "usd_service_fit", "usd_service_predict", "usd_paid", "cached_answers", "shared_cores"} | {
    f"{kind}_{side}_tokens" for kind in ("service", "paid") for side in ("prompt", "answer")
}
"""Fields that results of earlier versions lack; they are 0 there."""


@dataclass(frozen=True)
class TrialCost:
    """What one trial cost.

    Attributes:
        fit, predict: what was measured; ``predict`` covers ``rows_predicted`` rows.
        fit_work, predict_work: what went through the model.
        rows_predicted: rows of the test set.
        artefact_bytes: size of the predictor folder; a base model that it only names is not in it.
        fit_flops, predict_flops: operations; None where the model's family cannot be counted.
        usd_fit, usd_predict: seconds at the price of the whole machine, and a service's tokens.
        machine, price_usd_per_hour, price_date: the price that was used; the date as YYYY-MM-DD.
        usd_service_fit, usd_service_predict: of these amounts, the tokens of a service, those of answers from the
            cache included: what the same costs on new rows.
        usd_paid: what was billed for tokens this time.
        shared_cores: cores of the machine, where other trials may have run at the same time; 0: it ran alone. Alone,
            its seconds on the clock are charged, for the whole machine was rented. Side by side those of neighbours
            would be charged with them; so each is charged for its share of the cores: its processor time over their
            number.
        usd_further: of ``usd_fit`` and ``usd_predict``, the tokens of services other than the trial's model: a
            teacher's labels. ``fit_work`` and ``predict_work`` do not hold them; operations and money do.
    """

    fit: Measured
    predict: Measured
    fit_work: Work
    predict_work: Work
    rows_predicted: int
    artefact_bytes: int
    fit_flops: float | None
    predict_flops: float | None
    usd_fit: float
    usd_predict: float
    machine: str
    price_usd_per_hour: float
    price_date: str
    usd_service_fit: float = 0.0
    usd_service_predict: float = 0.0
    usd_paid: float = 0.0
    shared_cores: int = 0
    usd_further: float = 0.0

    @property
    def charged_fit_s(self) -> float:
        """Seconds of the whole machine that fitting is charged for."""
        return charged_s(self.fit, self.shared_cores)

    @property
    def charged_s_per_row(self) -> float:
        """Seconds of the whole machine that a predicted row is charged for."""
        return charged_s(self.predict, self.shared_cores) / self.rows_predicted

    @property
    def s_per_row(self) -> float:
        """Seconds on the clock per predicted row, all rows predicted in one go."""
        return self.predict.wall_s / self.rows_predicted

    @property
    def usd_per_thousand_rows(self) -> float:
        """USD to predict a thousand rows."""
        return 1000 * self.usd_predict / self.rows_predicted

    @property
    def peak_memory_bytes(self) -> int:
        """Most resident memory of either phase."""
        return max(self.fit.peak_memory_bytes, self.predict.peak_memory_bytes)

    def total_usd(self, volume: int) -> float:
        """USD to fit once and predict ``volume`` rows."""
        return self.usd_fit + volume * self.usd_predict / self.rows_predicted

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; ``from_json`` gives the record back."""
        return {"format": 1, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrialCost:
        """Build the record from what ``to_json`` gave.

        Raises:
            StudyError: values are missing, unknown, or of another type or format.
        """
        if values.get("format") != 1:
            raise StudyError(f"a trial's cost must have format 1 (got {values.get('format')!r})")
        rest = {key: value for key, value in values.items() if key != "format"}
        kinds = {"fit": Measured, "predict": Measured, "fit_work": Work, "predict_work": Work}
        for key, kind in kinds.items():
            rest[key] = _record(kind, rest.get(key), f"{key} of a trial's cost")
        found: TrialCost = _record(cls, rest, "a trial's cost")
        return found


def trial_cost(
    fit: Measured,
    predict: Measured,
    fit_work: Work,
    predict_work: Work,
    *,
    rows_predicted: int,
    artefact_bytes: int,
    architecture: Architecture | None,
    needs_model: bool,
    machine: Machine,
    service: ServicePrice | None = None,
    shared_cores: int = 0,
    further: Sequence[FurtherModel] = (),
) -> TrialCost:
    """Join what was measured and counted.

    Args:
        fit: what was measured while fitting.
        predict: what was measured while predicting the test set.
        fit_work: what went through the model while fitting; empty where there is none.
        predict_work: the same while predicting.
        rows_predicted: rows of the test set, at least 1.
        artefact_bytes: size of the predictor folder.
        architecture: None where there is no model or its family cannot be counted.
        needs_model: false for strategies without a language model: their operations are 0, not unknown.
        machine: whose price counts.
        service: what the tokens cost, where a service answered.
        shared_cores: cores of the machine, where other trials may have run at the same time; 0: it ran alone.
        further: other models that were asked.

    Raises:
        StudyError: no rows were predicted.
    """
    if rows_predicted < 1:
        raise StudyError(f"a trial must have predicted at least one row (got {rows_predicted})")
    is_unknown = needs_model and architecture is None
    own = FurtherModel(architecture, service, fit_work, predict_work)
    own_flops = (None, None) if is_unknown else (flops(architecture, fit_work), flops(architecture, predict_work))
    of_others = [_service_usd(one.service, work) for one in further for work in (one.fit_work, one.predict_work)]
    of_service = [
        sum(_service_usd(one.service, one.fit_work) for one in (own, *further)),
        sum(_service_usd(one.service, one.predict_work) for one in (own, *further)),
    ]
    return TrialCost(
        fit=fit,
        predict=predict,
        fit_work=fit_work,
        predict_work=predict_work,
        rows_predicted=rows_predicted,
        artefact_bytes=artefact_bytes,
        fit_flops=_with_further(own_flops[0], [(one, one.fit_work) for one in further]),
        predict_flops=_with_further(own_flops[1], [(one, one.predict_work) for one in further]),
        usd_fit=money(charged_s(fit, shared_cores), machine) + of_service[0],
        usd_predict=money(charged_s(predict, shared_cores), machine) + of_service[1],
        machine=machine.name,
        price_usd_per_hour=machine.price_usd_per_hour,
        price_date=machine.date.isoformat(),
        usd_service_fit=of_service[0],
        usd_service_predict=of_service[1],
        usd_paid=sum(_paid_usd(one) for one in (own, *further)),
        shared_cores=shared_cores,
        usd_further=sum(of_others),
    )


def charged_s(measured: Measured, shared_cores: int) -> float:
    """Return the seconds of the whole machine that a phase is charged for; see ``TrialCost.shared_cores``."""
    return measured.cpu_s / shared_cores if shared_cores else measured.wall_s


def _with_further(own: float | None, others: Sequence[tuple[FurtherModel, Work]]) -> float | None:
    """Add the operations of other models; None where those of any that computed cannot be counted."""
    total = own
    for one, work in others:
        if total is None or work == Work():
            continue
        total = None if one.architecture is None else total + flops(one.architecture, work)
    return total


def _paid_usd(one: FurtherModel) -> float:
    paid = one.fit_work + one.predict_work
    return 0.0 if one.service is None else one.service.usd(paid.paid_prompt_tokens, paid.paid_answer_tokens)


def _service_usd(service: ServicePrice | None, work: Work) -> float:
    return 0.0 if service is None else service.usd(work.service_prompt_tokens, work.service_answer_tokens)


def _record(kind: type[Any], values: object, subject: str) -> Any:  # one of the four record types above
    """Build a dataclass whose fields are numbers, texts, or records built already."""
    if not isinstance(values, Mapping):
        raise StudyError(f"{subject}: expected an object (got {type(values).__name__})")
    known = {field.name: str(field.type) for field in fields(kind)}
    wrong = sorted((values.keys() - known.keys()) | (known.keys() - values.keys() - _LATER))
    if wrong:
        raise StudyError(f"{subject}: missing or unknown values: {', '.join(wrong)}")
    for name, value in values.items():
        if not _fits(value, known[name]):
            raise StudyError(f"{subject}: {name} must be {known[name]} (got {value!r})")
    if "price_date" in known:
        try:
            datetime.date.fromisoformat(str(values["price_date"]))
        except ValueError as error:
            raise StudyError(f"{subject}: price_date must be a date (got {values['price_date']!r})") from error
    return kind(**values)


def _fits(value: object, annotation: str) -> bool:
    """Whether a value read from JSON is what a field's annotation says."""
    if annotation in ("Measured", "Work"):
        return type(value).__name__ == annotation
    if value is None:
        return "None" in annotation
    if annotation == "str":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (isinstance(value, int) or "float" in annotation) and 0 <= value < float("inf")

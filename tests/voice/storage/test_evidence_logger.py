"""`EvidenceLogger`: a host reads and writes evidence by itself."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentos.core.communication.evidence import EvidenceLogger, EvidenceRecord
from agentos.core.communication.models import ConnectorType, PolicyVerdict, RequestStatus, RiskLevel
from agentos.core.communication.models import EvidenceRecord as ModelsEvidenceRecord


def record(name: str, request: str = "req-1") -> EvidenceRecord:
    return EvidenceRecord(
        id=name,
        request_id=request,
        connector_type=ConnectorType.WEB_FETCH,
        operation="fetch",
        request_summary={"url": "https://example.org"},
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
    )


def test_records_are_logged_and_found_again(tmp_path: Path) -> None:
    with EvidenceLogger(tmp_path / "voice.db") as logger:
        assert logger.log(record("ev-1")) == "ev-1"
        assert logger.log(record("ev-2", "req-2")) == "ev-2"
        assert logger.log(record("ev-3")) == "ev-3"
        assert logger.get_evidence("ev-2") == record("ev-2", "req-2")
        assert logger.get_evidence("ev-9") is None
        assert logger.get_request_evidence("req-1") == [record("ev-1"), record("ev-3")]
        assert logger.get_request_evidence("req-9") == []
        assert (logger.verify().ok, logger.verify().records) == (True, 3)


def test_two_loggers_on_one_home_write_one_chain(tmp_path: Path) -> None:
    with EvidenceLogger(tmp_path / "voice.db") as one, EvidenceLogger(tmp_path / "voice.db") as two:
        for number in range(6):
            (one if number % 2 else two).log(record(f"ev-{number}"))
        assert one.verify() == two.verify()
        assert one.verify().records == 6


def test_logging_a_record_again_changes_nothing(tmp_path: Path) -> None:
    with EvidenceLogger(tmp_path / "voice.db") as logger:
        logger.log(record("ev-1"))
        logger.log(record("ev-1", "req-other"))
        assert logger.get_evidence("ev-1") == record("ev-1")
        assert logger.verify().records == 1


def test_a_bad_record_is_a_value_error(tmp_path: Path) -> None:
    with EvidenceLogger(tmp_path / "voice.db") as logger:
        bad = record("ev-1").model_copy(update={"metadata": {"thing": object()}})
        with pytest.raises(ValueError, match="ev-1"):
            logger.log(bad)
        assert logger.verify().records == 0


def test_a_closed_logger_says_so(tmp_path: Path) -> None:
    logger = EvidenceLogger(tmp_path / "voice.db")
    logger.close()
    logger.close()
    with pytest.raises(OSError, match="closed"):
        logger.log(record("ev-1"))


def test_the_default_place_is_the_home_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_VOICE_HOME", str(tmp_path / "home"))
    with EvidenceLogger() as logger:
        logger.log(record("ev-1"))
    assert (tmp_path / "home" / "voice.db").is_file()


def test_the_models_module_hands_on_the_names_of_the_specification() -> None:
    assert ModelsEvidenceRecord is EvidenceRecord
    assert (RiskLevel.LOW.value, RequestStatus.REQUIRE_ADMIN.value) == ("low", "require_admin")
    assert PolicyVerdict(status=RequestStatus.DENIED, reason_code="X").hint == ""


def test_importing_the_module_loads_no_database_library() -> None:
    program = (
        "import sys, agentos.core.communication.evidence, agentos.core.communication.models\n"
        "assert 'sqlalchemy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

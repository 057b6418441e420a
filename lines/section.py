"""What the sections of configs are made of: strict models, names, files."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo

from verdicts.checks import NAME


class Section(BaseModel):
    """A part of the config; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError('expected a name of 1 to 64 letters, digits, "_", "." or "-"')
    return text


def _from_folder(path: Path, info: ValidationInfo) -> Path:
    """Count a relative path from the config's folder."""
    if "\0" in str(path) or not str(path):
        raise ValueError("expected the path of a file")
    return Path(info.context or ".") / path


Name = Annotated[str, AfterValidator(_name)]
File = Annotated[Path, AfterValidator(_from_folder)]

"""`croissant.json`: the release in MLCommons' Croissant format 1.1, with the fields of responsible AI (RAI 1.0).

One `FileObject` a file with its checksum, one `FileSet` a split, and a `RecordSet` over it; its fields are the columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stedi.datasets import card
from stedi.datasets.options import SPLITS
from stedi.datasets.quality import Quality
from stedi.errors import many

NAME = "croissant.json"
_TYPES = {
    "string": "sc:Text",
    "boolean": "sc:Boolean",
    "double": "cr:Float64",
    "int32": "cr:Int32",
    "int64": "cr:Int64",
    "timestamp[us, UTC]": "sc:DateTime",
}
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        name: f"cr:{name}"
        for name in (
            *("arrayShape", "citeAs", "column", "extract", "field", "fileObject", "fileProperty", "fileSet", "format"),
            *("includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
            *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField"),
            *("transform", "containedIn"),
        )
    },
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}


def document(manifest: Mapping[str, Any], quality: Quality) -> dict[str, Any]:
    """Returns the content of `croissant.json`.

    Args:
        manifest: The content of the release's `manifest.json`.
        quality: The quality of its readings.
    """
    release, files = manifest["release"], manifest["files"]
    data = {split: [file for file in files if file["path"].startswith(f"data/{split}-")] for split in SPLITS}
    sets = [split for split in SPLITS if data[split]]
    people = many(manifest["subjects"], "person", "people")
    left = card.left(manifest)
    gone = f" Since it was made, {many(left, 'person was', 'people were')} recalled or erased from it." if left else ""
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": release.replace("@", "-"),
        "description": f"Step trainer and accelerometer readings of {people} who agree. {quality.verdict}.{gone}",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "version": f"{manifest['version']}.0.0",
        "datePublished": manifest["created"],
        "license": "By agreement with STEDI, for the purpose that the manifest names",
        "url": f"urn:stedi:{manifest['lake']}:{release}",
        "creator": {"@type": "sc:Organization", "name": "STEDI"},
        "citeAs": f"STEDI lake {manifest['lake']}, training set {release}, {manifest['created']}",
        "isLiveDataset": False,
        **_responsible(manifest, quality),
        "distribution": [
            *(_file(file) for split in sets for file in data[split]),
            *(_file(file) for file in files if not file["path"].startswith("data/")),
            *(
                {
                    "@type": "cr:FileSet",
                    "@id": f"{split}-files",
                    "name": f"{split}-files",
                    "description": f"The rows of the split {split}.",
                    "encodingFormat": "application/x-parquet",
                    "includes": f"data/{split}-*.parquet",
                }
                for split in sets
            ),
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": split,
                "name": split,
                "description": f"The split {split}: {many(manifest['splits'][split]['subjects'], 'person', 'people')}.",
                "field": [_field(split, column) for column in manifest["columns"]],
            }
            for split in sets
        ],
    }


def _responsible(manifest: Mapping[str, Any], quality: Quality) -> dict[str, Any]:
    overall = quality.overall
    found: dict[str, Any] = {
        "rai:dataCollection": "Delivered by customers' step trainers and by the phone app beside them, in use.",
        "rai:dataCollectionType": ["Sensors"],
        "rai:dataCollectionMissingData": f"{many(overall['NumInterrupts'], 'interrupt')}; of the step trainer's "
        f"readings {overall['matched_share'] or 0:.1%} found an accelerometer reading of the same person. Nothing was "
        "filled in but what `made_up` marks.",
        "rai:dataPreprocessingProtocol": [
            f"{'' if line['rows'] < 0 else '+'}{line['rows']:,}: {line['what']}" for line in manifest["account"]
        ],
        "rai:dataLimitations": [f"{quality.verdict}.", "Clocks of the two devices are not corrected."],
        "rai:dataBiases": "Only customers who agreed to research are in it; who agrees is not a random choice.",
        "rai:personalSensitiveInformation": [
            "Readings of people's movements under ids of this release alone: pseudonymous, not anonymous."
        ],
        "rai:dataUseCases": [f"Purpose: {manifest['purpose']}. Training step detection."],
        "rai:dataReleaseMaintenancePlan": "Who withdraws is recalled: apply the signed list with `stedi dataset "
        "apply-recall`. A refreshed release leaves them out.",
    }
    if manifest["options"]["resample"]:
        found["rai:dataImputationProtocol"] = "Linear between neighbours within the greatest gap, marked by `made_up`."
    if manifest["options"]["labels"]:
        found["rai:dataAnnotationProtocol"] = "Labels were delivered in a file and joined by person and time."
    return found


def _file(file: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file["path"],
        "name": file["path"],
        "contentUrl": file["path"],
        "contentSize": f"{file['size']} B",
        "encodingFormat": "application/x-parquet",
        "sha256": file["sha256"],
    }


def _field(split: str, column: Mapping[str, str]) -> dict[str, Any]:
    kind, shape = column["type"], 0
    while kind.startswith("list<"):
        kind, shape = kind[5:-1], shape + 1
    unit = f" Unit: {column['unit']}." if column["unit"] else ""
    field: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{split}/{column['name']}",
        "name": column["name"],
        "description": f"{column['description']}.{unit}",
        "dataType": _TYPES[kind],
        "source": {"fileSet": {"@id": f"{split}-files"}, "extract": {"column": column["name"]}},
    }
    if shape:
        field |= {"isArray": True, "arrayShape": ",".join(["-1"] * shape)}
    return field

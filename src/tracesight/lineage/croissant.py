"""A manifest as Croissant 1.1, the JSON-LD that search engines and loaders of data sets read.

http://mlcommons.org/croissant/1.1, with http://mlcommons.org/croissant/RAI/1.0 for what is known of annotators and
sensors, and PROV-O for who drew the labels. It names the manifest's file by its digest, and takes pictures, their
digests and splits from there; so it stays small whatever the number of pictures.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from tracesight.lineage.manifest import ALL, Manifest

CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
_MOST = 50  # label files, or folders of pictures, that are named one by one
_MEANING = {"train": "cr:TrainingSplit", "val": "cr:ValidationSplit", "test": "cr:TestSplit"}
# Appendix 1 of the specification, and the prefix of PROV-O.
_CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "arrayShape": "cr:arrayShape", "citeAs": "cr:citeAs",
    "column": "cr:column", "conformsTo": "dct:conformsTo", "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"}, "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/", "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty", "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract", "field": "cr:field", "fileProperty": "cr:fileProperty", "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet", "format": "cr:format", "includes": "cr:includes", "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5",
    "name": {"@container": "@language"}, "parentField": "cr:parentField", "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#", "recordSet": "cr:recordSet", "references": "cr:references",
    "regex": "cr:regex", "repeated": "cr:repeated", "replace": "cr:replace", "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/", "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField",
    "transform": "cr:transform",
}  # fmt: skip


def croissant(
    manifest: Manifest, *, url: str, sha256: str, prefix: str = "", coco: bool = False, published: str | None = None
) -> dict[str, Any]:
    """The JSON-LD of a data set.

    Args:
        url, sha256: of the manifest's file; the address may be relative to the file that is written here.
        prefix: what to put before the names in the manifest so that they lead from there to the files.
        coco: the label files are COCO's, so that objects and boxes can be read from them.
        published: date, YYYY-MM-DD.
    """
    files = [
        _file("manifest", "The manifest: every file by its SHA-256, with split, sensor and annotators", url, sha256),
        *_label_files(manifest, prefix),
    ]
    licences = [manifest.licence] if manifest.licence else list(manifest.licences)
    source = manifest.source or ""
    sets = [one for one in (_splits(manifest), _categories(manifest), _pictures(manifest), _labels()) if one]
    page = source if source.startswith(("http://", "https://")) else f"urn:sha256:{manifest.roots.pictures}"
    found = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": manifest.title or f"pictures-{manifest.roots.pictures[:12]}",
        "description": _description(manifest),
        "conformsTo": CONFORMS_TO,
        "url": page,
        "license": licences,
        "creator": {"@type": "sc:Organization", "name": manifest.controller} if manifest.controller else None,
        "datePublished": published,
        "version": f"0.0.0+{manifest.roots.pictures[:12]}",
        "distribution": [*files, _picture_files(manifest, prefix)],
        "recordSet": [*sets, *(_objects(manifest) if coco else [])],
        "prov:wasDerivedFrom": {"@id": source} if source else None,
        **_responsible(manifest),
    }
    return {key: value for key, value in found.items() if value not in (None, [], "")}


def missing(manifest: Manifest, published: str | None) -> list[str]:
    """What Croissant requires and nobody has said, as options of the command."""
    said = {"--title": manifest.title, "--licence": manifest.licence or manifest.licences,
            "--controller": manifest.controller, "--published": published}  # fmt: skip
    return [option for option, value in said.items() if not value]


def _description(manifest: Manifest) -> str:
    counts = ", ".join(f"{name}: {n.pictures} pictures with {n.objects} objects" for name, n in manifest.splits.items())
    roots = "; ".join(f"{name} {value}" for name, value in manifest.roots.model_dump().items())
    return f"{counts}. Merkle roots (RFC 6962, SHA-256): {roots}."


def _file(identifier: str, description: str, url: str, sha256: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject", "@id": identifier, "name": identifier, "description": description,
        "contentUrl": url, "encodingFormat": mimetypes.guess_type(url)[0] or "application/octet-stream",
        "sha256": sha256,
    }  # fmt: skip


def _label_files(manifest: Manifest, prefix: str) -> list[dict[str, Any]]:
    """Each by its digest; where there are more of them than a page holds, as a set."""
    rows = manifest.label_files
    if len(rows) <= _MOST:
        return [
            _file(f"labels/{row.name}", "A label file", prefix + row.name, row.sha256) | _drawn_by(manifest)
            for row in rows
        ]
    about = f"Label files. Root over their digests: {manifest.roots.label_files}"
    return [_file_set("label-files", about, (row.name for row in rows), prefix) | _drawn_by(manifest)]


def _picture_files(manifest: Manifest, prefix: str) -> dict[str, Any]:
    about = f"The pictures. Root over their digests: {manifest.roots.pictures}"
    return _file_set("picture-files", about, (row.name for row in manifest.pictures), prefix)


def _file_set(identifier: str, description: str, names: Iterable[str], prefix: str) -> dict[str, Any]:
    paths = [PurePosixPath(name) for name in names]
    includes = sorted({f"{prefix}{path.with_name('*' + path.suffix)}" for path in paths})
    if len(includes) > _MOST:
        includes = sorted({f"{prefix}**/*{path.suffix}" for path in paths})
    types = sorted({mimetypes.guess_type(f"x{suffix}")[0] or "application/octet-stream" for suffix in
                    {path.suffix for path in paths}})  # fmt: skip
    return {
        "@type": "cr:FileSet", "@id": identifier, "name": identifier, "description": description,
        "encodingFormat": types, "includes": includes,
    }  # fmt: skip


def _drawn_by(manifest: Manifest) -> dict[str, Any]:
    """Annotators and tools as agents of PROV-O."""
    agents = [
        *({"@type": "prov:Person", "prov:label": one.id} for one in manifest.annotators[:_MOST]),
        *({"@type": "prov:SoftwareAgent", "prov:label": tool} for tool in list(manifest.tools)[:_MOST]),
    ]
    return {"prov:wasAttributedTo": agents} if agents else {}


def _field(
    identifier: str, kind: str | list[str], path: str | None = None, file: str = "manifest", **more: Any
) -> dict[str, Any]:
    source = {} if path is None else {"source": {"fileObject": {"@id": file}, "extract": {"jsonPath": path}}}
    return {"@type": "cr:Field", "@id": identifier, "name": identifier, "dataType": kind, **source, **more}


def _record_set(identifier: str, description: str, fields: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet", "@id": identifier, "name": identifier, "description": description, "field": fields,
        **more,
    }  # fmt: skip


def _splits(manifest: Manifest) -> dict[str, Any] | None:
    if list(manifest.splits) == [ALL]:
        return None
    fields = [_field("splits/name", "sc:Text"), _field("splits/url", "sc:URL")]
    rows = [{"splits/name": name, "splits/url": _MEANING.get(name, f"cr:{name}")} for name in manifest.splits]
    return _record_set("splits", "The parts of the data.", fields, dataType="cr:Split",
                       key={"@id": "splits/name"}, data=rows)  # fmt: skip


def _categories(manifest: Manifest) -> dict[str, Any] | None:
    if not manifest.categories:
        return None
    fields = [_field("categories/id", "sc:Integer"), _field("categories/name", "sc:Text")]
    rows = [{"categories/id": row.id, "categories/name": row.name} for row in manifest.categories]
    return _record_set("categories", "What objects are.", fields, dataType="sc:Enumeration",
                       key={"@id": "categories/id"}, data=rows)  # fmt: skip


def _pictures(manifest: Manifest) -> dict[str, Any]:
    fields = [
        _field("pictures/name", "sc:Text", "$.pictures[*].name", description="Path relative to the data."),
        _field("pictures/sha256", "sc:Text", "$.pictures[*].sha256", description="SHA-256 of the file."),
    ]
    if list(manifest.splits) != [ALL]:
        split = _field("pictures/split", "sc:Text", "$.pictures[*].split")
        fields.append(split | {"references": {"field": {"@id": "splits/name"}}})
    return _record_set("pictures", "Every picture, from the manifest.", fields, key={"@id": "pictures/name"})


def _labels() -> dict[str, Any]:
    fields = [
        _field("annotations/picture", "sc:Text", "$.pictures[*].name", description="The picture they belong to."),
        _field("annotations/objects", "sc:Integer", "$.pictures[*].objects", description="How many are labelled."),
        _field("annotations/sha256", "sc:Text", "$.pictures[*].labels", description="Digest of what the labels say."),
    ]
    return _record_set("annotations", "The labels of every picture, from the manifest.", fields,
                       key={"@id": "annotations/picture"})  # fmt: skip


def _objects(manifest: Manifest) -> list[dict[str, Any]]:
    """The objects in COCO's label files."""
    found = []
    for row in manifest.label_files[:_MOST]:
        file, name = f"labels/{row.name}", f"objects/{row.name}"
        fields = [
            _field(f"{name}/id", "sc:Text", "$.annotations[*].id", file),
            _field(f"{name}/image_id", "sc:Integer", "$.annotations[*].image_id", file),
            _field(f"{name}/category_id", ["sc:Integer", "cr:Label"], "$.annotations[*].category_id", file),
            _field(f"{name}/bbox", "cr:BoundingBox", "$.annotations[*].bbox", file),
        ]
        found.append(_record_set(name, "The objects of a label file; boxes as x, y, width, height.", fields))
    return found


def _responsible(manifest: Manifest) -> dict[str, Any]:
    """Croissant RAI: who labelled, with what, and what took the pictures."""
    pictures = sum(count.pictures for count in manifest.splits.values())
    objects = sum(count.objects for count in manifest.splits.values())
    people = "; ".join(
        f"{one.id}: {one.objects} objects on {one.pictures} pictures" for one in manifest.annotators[:_MOST]
    )
    sensors = "; ".join(
        f"{' '.join(filter(None, (s.make, s.model, s.lens, s.serial, s.about)))}: {s.pictures} pictures"
        for s in manifest.sensors[:_MOST]
    )
    times = [time[:10] for s in manifest.sensors for time in (s.first, s.last) if time]
    return {
        "rai:dataCollection": f"Sensors: {sensors}." if sensors else None,
        "rai:dataCollectionTimeFrame": [min(times), max(times)] if times else None,
        "rai:dataAnnotationProtocol": f"Objects were drawn by {len(manifest.annotators)} annotators ({people})."
        if people else None,
        "rai:dataAnnotationPlatform": list(manifest.tools) or None,
        "rai:annotationsPerItem": f"{objects / pictures:.1f} objects on a picture, on average" if pictures else None,
        "rai:personalSensitiveInformation": "Places where pictures were taken"
        if any(row.location for row in manifest.pictures) else None,
    }  # fmt: skip

"""The services and methods of the contract, read from its descriptors: the only list of them."""

from __future__ import annotations

from docpreview.v1 import preview_job_service_pb2, preview_queue_service_pb2, upload_service_pb2, usage_service_pb2

SERVICES = tuple(
    service
    for module in (preview_job_service_pb2, preview_queue_service_pb2, usage_service_pb2, upload_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)
SERVICE_NAMES = tuple(service.full_name for service in SERVICES)
METHOD_NAMES = frozenset(method.name for service in SERVICES for method in service.methods)
"""As policies and limits name methods: without the service, because no two services have a method of one name."""

BUCKET_METHODS = frozenset(
    method.name for service in SERVICES for method in service.methods if "bucket" in method.input_type.fields_by_name
)
"""Methods on one bucket."""

PAGE_URL_METHODS = frozenset(
    method.name
    for service in SERVICES
    for method in service.methods
    if "page_url_ttl" in method.input_type.fields_by_name
)
"""Methods that give addresses of pages."""

"""What the contract promises beyond what schemathesis checks by itself; schemathesis.toml loads it.

All of it follows from the document and from the RFCs of HTTP, URIs and JSON, but for what the signed URL is
good for. Each check needs nothing but the case that it is given, so that a failure can be repeated.
"""

# Schemathesis runs the checks in the order in which they are loaded. The last one waits.
import request_checks  # noqa: F401, I001
import http_checks  # noqa: F401
import storage_checks  # noqa: F401

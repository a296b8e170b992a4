"""A file per page: its routes, its statements, and the values of its template.

A handler takes the backend from `request.app.state.backend`, the tenant from `render.tenant(request)`, and answers with
`render(request, "<noun>.html", {...})`, or with `as_json` if `wants_json(request)`. Statements always name the tenant.
Templates make every address with `link(path, name=value)`, which keeps the tenant.
"""

"""A file a page: its routes, its statements, and what its template is given.

A handler takes the desk from `request.app.state.backend`, the tenant from `render.tenant(request)`, and answers with
`render(request, "<noun>.html", {...})`, or with `as_json` where `wants_json(request)`. Statements name the tenant
always. Templates make every address with `link(path, name=value)`, which keeps the tenant.
"""

"""Wordings by which servers of models refuse a request, for codes that a status does not give."""

from __future__ import annotations

import re

TOO_LONG = re.compile(
    r"context.?(?:length|window|size|limit)"
    r"|exceed_context"
    r"|maximum (?:context|prompt|sequence|model length)"
    r"|maximum number of (?:input )?tokens"
    r"|too many (?:input )?tokens"
    r"|tokens? (?:in|of) (?:the )?(?:request|prompt|input|messages) (?:is |are )?(?:more|larger|greater) than"
    r"|(?:prompt|inputs?|request|messages?)(?: \([^()]{0,40}\))? (?:is|are) (?:too (?:long|large)|longer than)"
    r"|range of input length"
    r"|input tokens? (?:exceed|count)"
    r"|inputs?`? (?:tokens \+|must have less than)"
    r"|exceeded model token limit|token limit exceeded"
    r"|exceeds? max(?:imum)?[ _](?:message|input|prompt)[ _]tokens?"
    r"|reduce the length of (?:the|your) (?:messages|prompt|input)"
    r"|trying to keep the first"
    r"|string_above_max_length",
    re.IGNORECASE,
)
"""The prompt does not fit the model."""

TOO_LONG_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"})

NO_CREDIT = re.compile(
    r"insufficient[ _](?:\w{1,20}[ _])?(?:balance|quota|credits?|funds)"
    r"|credit balance is too low"
    r"|(?:balance|credits?) (?:is |are )?(?:not enough|insufficient|exhausted|depleted)"
    r"|(?:out of|no more|run out of|used all available|requires? more) credits?"
    r"|billing[_ ]hard[_ ]limit"
    r"|account (?:is )?(?:overdue|in arrears)|arrearage"
    r"|余额不足|欠费",
    re.IGNORECASE,
)
"""The account has no money left. Gemini calls it a quota, too, when there are too many requests in a minute."""

UNSUPPORTED = re.compile(
    r"(?:does|do) ?n[o']t support (?:tool|function|image|vision|audio|video|file|document|multi|thinking|reasoning"
    r"|structured|json|response.?format|embed)"
    r"|(?:image|audio|video|file|tool|function|multi-?modal|json_schema|response_format)[\w, `'\".]{0,40} "
    r"(?:is|are) (?:not|only|un)[ -]?(?:currently )?(?:supported|available|enabled)"
    r"|response_format type is unavailable"
    r"|not a multi-?modal model|no endpoints found that support|requires --(?:jinja|enable-auto-tool-choice)",
    re.IGNORECASE,
)
"""The model or its server lacks an ability that the request needs."""

BUSY = re.compile(r"over-?loaded|at capacity|no capacity|high demand", re.IGNORECASE)
"""The server has too much to do."""

FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "data_inspection_failed"})
"""Codes of a prompt that a server's filter has refused."""

KINDS = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "unauthenticated": 401,
    "billing_error": 402,
    "insufficient_quota": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "not_found": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "rate_limited": 429,
    "resource_exhausted": 429,
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "badrequesterror": 400,
    "bad_request": 400,
    "exceed_context_size_error": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "failed_precondition": 400,
    "api_error": 500,
    "server_error": 500,
    "overloaded": 529,
    "overloaded_error": 529,
    "service_unavailable": 503,
    "unavailable": 503,
}
"""The status that an error within a stream stands for, by its code or type."""

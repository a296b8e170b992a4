-- By day, for the tenant of the SQL login: questions, answers that failed, tokens, and what the calls of models cost.
SELECT day, questions, failed, prompt_tokens, completion_tokens, round(cost::numeric, 4) AS usd
FROM (
    SELECT date(created_at) AS day, count(*) AS questions, count(*) FILTER (WHERE status = 'failed') AS failed
    FROM headrace.messages
    GROUP BY 1
) asked
FULL JOIN (
    SELECT date(created_at) AS day, sum(prompt_tokens) AS prompt_tokens, sum(completion_tokens) AS completion_tokens,
        sum(cost) AS cost
    FROM headrace.model_calls
    GROUP BY 1
) called USING (day)
ORDER BY day DESC
LIMIT 31;

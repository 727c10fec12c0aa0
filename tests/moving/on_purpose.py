"""The differences from the existing system that are meant, each with its reason; the page on moving names them too."""

ON_PURPOSE = {
    # What a run says
    r"tasks\.(never|to_text): theirs 'PENDING', ours 'CANCELLED'": "no task of a run that has ended is PENDING",
    r"task_records\.(never|to_text)\.(state|ended_at): ": "the same in its record",
    r"^stored \| .*task_records\.(never|to_text|after): missing": "a task that never started has a record in answers",
    r"error: theirs ('out of flour'|\"invalid literal for int)": "theirs is part of it; task and exception are named",
    r"error: theirs \"flow_not_found: 'nowhere'\"": "that word, and a sentence",
    r"task_records\.\w+\.traceback: ": "it begins with the user's own code, not with the engine's",
    r"end_time: theirs None, ours '<time>'": "what has ended says when",
    r"yaml_missing>?[\]\}.].*(tag|tags|workflow_yaml_\w+): ": "such a run keeps its tag and hash",
    r"^GET /runs\?tag=default \| : 7 there, 8 here": "so it is among those of its tag",
    r"yaml_missing>?[\]\}.].*error: ": "the module that is at fault is named, not a variable of the engine's",
    r"(waiting|mine).*status: theirs 'CANCELLING', ours 'CANCELLED'": "a run that waits is cancelled at once",
    # What is refused
    r"^GET /runs\?status=completed ": "a status is taken in any case",
    r"^GET /\S*(status=NONE|include=nothing|=inf)\S* \| status 200, here 422": "such a filter would say nothing",
    r"^GET /(workers|wheels/history)\?\w+=x \| detail: ": "FastAPI's list, which names the words that there are",
    r"^GET /wheels/history\?action=pin ": "there are pins",
    r"^PATCH /workers/w1 .*(1|'yes'|'x')}} \|": "hidden is true or false",
    r"\| status 503, here 404": "what can be no id is not found; NATS is well",
    r"^cancel with (\[\]|text) ": "a reason that cannot be read would be lost",
    r"^POST /runs.*'tag': .*\| detail: ": "a sentence that says what a tag is",
    r"^POST /runs .*'(tag|flow_name)': 'xxx": "64 characters of a tag, 256 of a name",
    r"^POST /runs: (NaN|a key twice) ": "no JSON, or none that says one thing",
    r"^POST /wheels {} .*detail: ": "a sentence that says that it is no form",
    r"^yaml: (version 2|no callable|an unknown task|tasks as list|with inputs as list|with a key twice) \| status 200":
        "a flow that cannot run is refused when it is submitted",
    # Who may do what
    r" \[(|revoked|wrong secret|unknown|no key at all)\] \| status (200|422), here 40[13]": "more paths ask for a key",
    r"\[(unknown|no key at all|wrong secret)\] \| status \d+, here 429": "who tries many keys has to wait",
    r"^PATCH /workers/w1 .*\[(good|other)\] \| status 200, here 403": "workers are the operators' matter",
    r"^GET /workers \[.*last_run_": "runs of others are not told",
    r"^GET /wheels/history \[.*\.source\.": "from where others came is not told",
    r"^GET /metrics \[.*(pyoco_runs_total|pyoco_runs_today_total|pyoco_dlq)": "one's own runs are counted",
    # The rest
    r"^GET /(docs|redoc) ": "it would load programs from another site; /openapi.json is there",
    r"^GET /(runs|workers)/ \| status 307": "answered at once",
    r"^HEAD /health ": "it is answered",
    r"^GET /metrics \| pyoco_dlq_messages_total": "a flow that cannot be made leaves a dead letter too",
    r"letters\.(not json|{\"flow_name\":\"x\"})\.error": "what is wrong with the job, in a sentence",
}  # fmt: skip

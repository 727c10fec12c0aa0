"""The sentences of ``why``, in English and Japanese: what it is, and what to do."""

from pyoco_server.gateway.why.diagnosis import Why, WhyCode
from pyoco_server.model.text.languages import Language
from pyoco_server.model.text.sentences import Text


def render(why: Why, language: Language, now: float) -> tuple[str, str]:
    """Give an answer's sentence and hint.

    Args:
        why: The answer.
        language: Of the texts; quoted errors stay as they are.
        now: Unix seconds; a time far from it is shown with its date.
    """
    return TEXTS[why.code].say(why.values, language, now)


_WHEELS = (
    "[Wheels of worker {worker_id} cannot be used: {wheels_error}. ]"
    "[No uploaded wheel serves the tags of its worker ({wheels_none}). ]"
    "[Worker {wheels_off} does not use uploaded wheels: start it with --wheel-sync. ]"
    "[It has the wheels {wheels}. ]"
)
_WHEELS_JA = (
    "[ワーカー {worker_id} で使えない wheel があります: {wheels_error}。]"
    "[そのワーカーのタグ ({wheels_none}) に合う wheel は登録されていません。]"
    "[ワーカー {wheels_off} は登録された wheel を使いません (--wheel-sync を付けて起動します)。]"
    "[使っている wheel: {wheels}。]"
)
_START = "pyoco-worker --nats-url {nats_url} --tags {tag} --worker-id"
_TASKS = "pyoco-client tasks {run_id}"
_LOGS = "pyoco-client logs {run_id}"
_RERUN = "pyoco-client rerun {run_id}"
_AHEAD = "[; runs ahead of it: {ahead}]."
_AHEAD_JA = "[。先に待っている実行: {ahead}]。"
_SEEN = "[ (last sign of life {silent_for} ago)]"
_SEEN_JA = "[ (最後の応答は {silent_for}前)]"
_FAILED = "It failed[ after {ran}][: {error}][, at {place}][ (raised in {raised_at})]."
_RAN_JA = "[ (実行時間 {ran})]"
_ERROR_JA = "[。タスク: {task}][ ({error})][。場所: {place}][ (例外の発生元: {raised_at})]。"

TEXTS: dict[WhyCode, Text] = {
    WhyCode.NO_WORKER: Text(
        f"It waits: no worker serves the tag {{tag}}{_AHEAD}",
        f"Start one: {_START} {{tag}}-1",
        f"待機中: タグ {{tag}} を担当するワーカーがありません{_AHEAD_JA}",
        f"ワーカーを起動してください: {_START} {{tag}}-1",
    ),
    WhyCode.WORKERS_GONE: Text(
        "It waits: no live worker serves the tag {tag}; {known_worker} is {known_state}[, last seen {silent_for} ago]"
        + _AHEAD,
        f"Start it again: {_START} {{known_worker}}",
        f"待機中: タグ {{tag}} を担当する動作中のワーカーがありません。{{known_worker}} は {{known_state}}{_SEEN_JA}"
        f"{_AHEAD_JA}",
        f"もう一度起動してください: {_START} {{known_worker}}",
    ),
    WhyCode.WORKERS_DRAINING: Text(
        "It waits: the only live workers for the tag {tag} are draining and take no more runs"
        f" (workers: {{workers}})[; reason: {{drain_reason}}]{_AHEAD}",
        f"Start another one: {_START} NAME",
        "待機中: タグ {tag} を担当する動作中のワーカーはすべて停止準備中で、新しい実行を受け付けません"
        f" (ワーカー: {{workers}})[。理由: {{drain_reason}}]{_AHEAD_JA}",
        f"別のワーカーを起動してください: {_START} NAME",
    ),
    WhyCode.WORKERS_UNFIT: Text(
        "It waits: the only live workers for the tag {tag} take no runs, because their machines cannot begin any"
        f" (workers: {{workers}}); {{known_worker}}: {{trouble}}[; it tries again at {{next_try_at}}]{_AHEAD}",
        "Mend it on the worker's machine: it takes runs again by itself. Or start another one: " + f"{_START} NAME",
        "待機中: タグ {tag} を担当する動作中のワーカーは、どれもマシンの問題で実行を開始できません"
        f" (ワーカー: {{workers}})。{{known_worker}}: {{trouble}}[。次の再試行: {{next_try_at}}]{_AHEAD_JA}",
        "ワーカーのマシンの問題を直すと、自動で受け付けを再開します。別のワーカーを起動することもできます: "
        f"{_START} NAME",
    ),
    WhyCode.ALL_BUSY: Text(
        "It waits for a free slot: all slots of the live workers for the tag {tag} are busy"
        f" (workers: {{live_workers}}, slots: {{slots}}){_AHEAD}",
        f"Wait, give a worker more slots (--concurrency N), or start another one: {_START} NAME",
        "空きスロット待ち: タグ {tag} の動作中のワーカーのスロットはすべて使用中です"
        f" (ワーカー: {{live_workers}}、スロット: {{slots}}){_AHEAD_JA}",
        f"待つか、--concurrency N でスロットを増やすか、ワーカーを追加してください: {_START} NAME",
    ),
    WhyCode.QUEUE_LIMIT: Text(
        "It waits although a worker is free: the queue of the tag {tag} gives out no more jobs"
        f"[ while {{unacknowledged}} are not acknowledged]{_AHEAD}",
        "Jobs of lost workers come back by themselves. For more runs at a time, set a larger"
        " PYOCO_CONSUMER_MAX_ACK_PENDING before the tag's consumer is made.",
        "ワーカーは空いていますが待機中: [未確認のジョブが {unacknowledged} 件あり、]"
        f"タグ {{tag}} のキューは次を配りません{_AHEAD_JA}",
        "失われたワーカーのジョブは自動で戻ります。同時実行を増やすには、タグのコンシューマーを作る前に"
        " PYOCO_CONSUMER_MAX_ACK_PENDING を大きくしてください。",
    ),
    WhyCode.STARTING: Text(
        f"It should start any moment: a worker for the tag {{tag}} has a free slot{_AHEAD}",
        "Ask again in a few seconds.",
        f"まもなく開始します: タグ {{tag}} のワーカーに空きスロットがあります{_AHEAD_JA}",
        "数秒後にもう一度確認してください。",
    ),
    WhyCode.JOB_MISSING: Text(
        "It still waits[ after {waited}] although a worker for the tag {tag} is free: its job is being looked for, and"
        " is queued again if it is lost.",
        "Nothing to do. If it stays so for minutes, look at the server's log, and at last_pull_at in:"
        " pyoco-client workers",
        "タグ {tag} のワーカーは空いていますが[、{waited}たっても]開始していません: ジョブを探しており、"
        "失われていればキューに入れ直します。",
        "操作は不要です。数分続くときはサーバーのログと、pyoco-client workers の last_pull_at を見てください。",
    ),
    WhyCode.NOT_FETCHED: Text(
        "It still waits[ after {waited}] although a worker for the tag {tag} is free and its job is on the queue:"
        " nobody fetches it[; the last answer of the queue to a worker was at {last_pull_at}].",
        "Start those workers again whose last_pull_at is old: pyoco-client workers",
        "タグ {tag} のワーカーは空いており、ジョブもキューにありますが[、{waited}たっても]誰も取り出していません"
        "[。ワーカーへのキューの最後の応答: {last_pull_at}]。",
        "last_pull_at の古いワーカーを起動し直してください: pyoco-client workers",
    ),
    WhyCode.RUNNING: Text(
        "It has been running[ for {running_for}][ on worker {worker_id}][ (attempt {attempt} of {max_attempts})]"
        "[; last sign of life {silent_for} ago][; tasks running now: {tasks}][; waiting for a retry: {retrying}].",
        f"Follow it: pyoco-client watch {{run_id}} --until-terminal; what its tasks print: {_LOGS} -f",
        "実行中[ ({running_for}経過)][、ワーカー {worker_id}][ (試行 {attempt}/{max_attempts})]"
        "[。最後の応答は {silent_for}前][。実行中のタスク: {tasks}][。再試行待ちのタスク: {retrying}]。",
        f"様子を見るには: pyoco-client watch {{run_id}} --until-terminal。タスクの出力: {_LOGS} -f",
    ),
    WhyCode.RETRY_WAIT: Text(
        "Task {task} waits for its retry until {retry_at} (in {retry_in}): try {try_number} of {tries}"
        "[; the last one failed: {error}].",
        f"Nothing to do. Traceback: {_TASKS}. To end it: pyoco-client cancel --run-id {{run_id}}",
        "タスク {task} は {retry_at} ({retry_in}後) の再試行を待っています: {tries} 回中 {try_number} 回目"
        "[。前回の失敗: {error}]。",
        f"操作は不要です。トレースバック: {_TASKS}。止めるには: pyoco-client cancel --run-id {{run_id}}",
    ),
    WhyCode.WORKER_SILENT: Text(
        f"Its worker {{worker_id}} is lost{_SEEN}; it is expected to be delivered to another one by {{expected_by}}"
        "[ (in {expected_in})]; attempts left: {attempts_left}.",
        "Nothing to do. With no attempt left it fails as worker_lost.",
        f"ワーカー {{worker_id}} の応答がありません{_SEEN_JA}。{{expected_by}}[ ({{expected_in}}後)] までに"
        "別のワーカーへ再配信される見込みです。残り試行: {attempts_left}。",
        "操作は不要です。残り試行が 0 なら worker_lost として失敗します。",
    ),
    WhyCode.WORKER_SILENT_NO_OTHER: Text(
        f"Its worker {{worker_id}} is lost{_SEEN}, and no live worker takes runs of the tag {{tag}};"
        " attempts left: {attempts_left}.",
        f"Start one, which takes the run over from {{expected_by}} on: {_START} {{tag}}-1",
        f"ワーカー {{worker_id}} の応答がなく{_SEEN_JA}、タグ {{tag}} の実行を受け付ける動作中のワーカーもありません。"
        "残り試行: {attempts_left}。",
        f"ワーカーを起動してください。{{expected_by}} 以降に引き継ぎます: {_START} {{tag}}-1",
    ),
    WhyCode.REDELIVERY_OVERDUE: Text(
        f"Its worker {{worker_id}} is lost{_SEEN}; it should have been delivered to another one by {{expected_by}};"
        " attempts left: {attempts_left}.",
        "All live workers may be busy: pyoco-client workers. A run whose job is gone is queued again by the server.",
        f"ワーカー {{worker_id}} の応答がありません{_SEEN_JA}。{{expected_by}} までに別のワーカーへ再配信されるはず"
        "でした。残り試行: {attempts_left}。",
        "ワーカーがすべて使用中かもしれません: pyoco-client workers。ジョブが失われた実行はサーバーが入れ直します。",
    ),
    WhyCode.CANCELLING: Text(
        "It is being cancelled[ since {cancel_requested_at} ({asked_ago} ago)][ by {cancel_requested_by}]"
        "[: {cancel_reason}]; its worker {worker_id} kills it at {killed_by} at the latest.",
        "Wait. A task that looks at ctx.is_cancelled ends sooner.",
        "キャンセル中[ ({cancel_requested_at}、{asked_ago}前から)][。要求者: {cancel_requested_by}]"
        "[。理由: {cancel_reason}]。遅くとも {killed_by} にワーカー {worker_id} が強制終了します。",
        "お待ちください。ctx.is_cancelled を見るタスクはより早く終わります。",
    ),
    WhyCode.CANCELLING_WORKER_SILENT: Text(
        f"It is being cancelled[ since {{cancel_requested_at}}], but its worker {{worker_id}} is lost{_SEEN};"
        " it ends when its job is delivered again, about {expected_by}.",
        "A live worker for the tag {tag} has to be there to end it: pyoco-client workers",
        f"キャンセル中[ ({{cancel_requested_at}} から)]ですが、ワーカー {{worker_id}} の応答がありません{_SEEN_JA}。"
        "{expected_by} ごろジョブが再配信されたときに終わります。",
        "終わらせるにはタグ {tag} の動作中のワーカーが必要です: pyoco-client workers",
    ),
    WhyCode.COMPLETED: Text(
        "It completed[ after {ran}][ on worker {worker_id}][; tasks that failed in isolation: {isolated}].",
        f"Its results: {_TASKS}",
        f"完了しました{_RAN_JA}[。ワーカー: {{worker_id}}][。単独で失敗したタスク: {{isolated}}]。",
        f"結果: {_TASKS}",
    ),
    WhyCode.TASK_FAILED: Text(
        _FAILED,
        f"Inputs and traceback: {_TASKS}. When it is mended, run it again: {_RERUN}",
        f"タスクが例外で終わり、失敗しました{_RAN_JA}{_ERROR_JA}",
        f"入力とトレースバック: {_TASKS}。直したら、もう一度実行してください: {_RERUN}",
    ),
    WhyCode.TASK_TIMEOUT: Text(
        _FAILED,
        f"Give the task more time (timeout_sec in the flow), or find where it hangs in what it printed: {_LOGS}",
        f"タスクが timeout_sec を超え、失敗しました{_RAN_JA}{_ERROR_JA}",
        f"フローの timeout_sec を延ばすか、出力から止まった場所を調べてください: {_LOGS}",
    ),
    WhyCode.RUN_TIMEOUT: Text(
        "It failed: it took longer than its timeout_sec[ of {limit}][; then running: {task}].",
        f"Submit it with a larger timeout_sec, or see which task took long: {_TASKS}",
        "実行全体の timeout_sec[ ({limit})] を超え、失敗しました[。そのとき実行中: {task}]。",
        f"timeout_sec を大きくして投入するか、長くかかったタスクを調べてください: {_TASKS}",
    ),
    WhyCode.CANCELLED: Text(
        "It was cancelled[ before it started, after waiting {waited}][ while it was running, after {ran}]"
        "[ by {cancel_requested_by}][: {cancel_reason}].",
        f"To run it after all: {_RERUN}",
        "キャンセルされました[ (開始前、待機時間 {waited})][ (実行中、{ran}後)][。要求者: {cancel_requested_by}]"
        "[。理由: {cancel_reason}]。",
        f"やはり実行するには: {_RERUN}",
    ),
    WhyCode.CHILD_EXITED: Text(
        _FAILED,
        f"Something in the task ended the whole process (os._exit). The last that it printed: {_LOGS}",
        f"実行のプロセスが自分で終了し、失敗しました{_RAN_JA}{_ERROR_JA}",
        f"タスクの中の何かがプロセス全体を終わらせました (os._exit)。最後の出力: {_LOGS}",
    ),
    WhyCode.CHILD_KILLED_BY_SIGNAL: Text(
        _FAILED,
        "SIGSEGV and SIGABRT come from native code in a library, SIGKILL from outside. The last that it printed: "
        + _LOGS,
        f"実行のプロセスがシグナルで終了し、失敗しました{_RAN_JA}{_ERROR_JA}",
        f"SIGSEGV と SIGABRT はライブラリのネイティブコード、SIGKILL は外部からです。最後の出力: {_LOGS}",
    ),
    WhyCode.OUT_OF_MEMORY: Text(
        "It failed[ after {ran}], out of memory[: {error}][, at {place}][ (raised in {raised_at})].",
        "Let the task hold less at a time, or give runs like it a tag whose workers have more memory.",
        f"メモリー不足で失敗しました{_RAN_JA}{_ERROR_JA}",
        "一度に保持するデータを減らすか、メモリーの多いワーカーのタグを使ってください。",
    ),
    WhyCode.WORKER_LOST: Text(
        "It failed: its worker was lost in every attempt[ ({attempt} of {max_attempts})][; last on {worker_id}].",
        f"See what ends the worker (its log, and dmesg for lack of memory), then run it again: {_RERUN}",
        "すべての試行でワーカーが失われ、失敗しました[ ({attempt}/{max_attempts})][。最後のワーカー: {worker_id}]。",
        f"ワーカーが終わる原因を調べ (ログ、メモリー不足なら dmesg)、もう一度実行してください: {_RERUN}",
    ),
    WhyCode.FLOW_NOT_FOUND: Text(
        _FAILED,
        "Start the workers of the tag {tag} with a --flow-resolver that knows it, or submit a flow.yaml.",
        f"フローが見つからず、失敗しました{_RAN_JA}{_ERROR_JA}",
        "タグ {tag} のワーカーを、それを知る --flow-resolver 付きで起動するか、flow.yaml を投入してください。",
    ),
    WhyCode.INVALID_FLOW: Text(
        "It failed before its first task[: {error}].",
        "Mend the flow, or the module that it names, and submit it again.",
        f"フローを実行できず、最初のタスクの前に失敗しました{_ERROR_JA}",
        "フローか、それが参照するモジュールを直して、もう一度投入してください。",
    ),
    WhyCode.INVALID_JOB: Text(
        "It failed: its job on the queue cannot be read[ ({error})].",
        "A job of another program needs run_id and flow_name. Its dead letter: pyoco-client dlq list",
        f"キューのジョブを読めず、失敗しました{_ERROR_JA}",
        "他のプログラムのジョブには run_id と flow_name が必要です。デッドレター: pyoco-client dlq list",
    ),
    WhyCode.DEPENDENCY_MISSING: Text(
        _FAILED,
        f"{_WHEELS}Install what is missing where the workers of the tag {{tag}} run, or upload it as a wheel, "
        f"then run it again: {_RERUN}",
        f"必要なモジュールがワーカーになく、失敗しました{_RAN_JA}{_ERROR_JA}",
        f"{_WHEELS_JA}タグ {{tag}} のワーカーの環境に不足しているものを入れるか wheel を登録し、"
        f"もう一度実行してください: {_RERUN}",
    ),
    WhyCode.OUTPUT_TOO_LARGE: Text(
        _FAILED,
        "Let the task write its result to a file (ctx.save_artifact), and return where it is.",
        f"出力が大きすぎ、失敗しました{_RAN_JA}{_ERROR_JA}",
        "結果をファイルに書き (ctx.save_artifact)、その場所を返すようにしてください。",
    ),
    WhyCode.RECORD_UNREADABLE: Text(
        "Its record could not be read[: {error}], so nobody can tell what it did.",
        "Submit it anew. What could be read is kept: pyoco-client get {run_id}",
        "記録を読み取れなかったため、何が行われたか分かりません[ ({error})]。",
        "もう一度投入してください。読み取れた部分は残っています: pyoco-client get {run_id}",
    ),
    WhyCode.ENDED: Text(
        "It ended {status}[: {error}]; its record does not say why.",
        f"Its tasks: {_TASKS}",
        "{status} で終わりました[ ({error})]。記録に理由がありません。",
        f"タスク: {_TASKS}",
    ),
    WhyCode.UNKNOWN_STATUS: Text(
        "Its record has a status that this server does not know[: {status}].",
        "Another program wrote it, or a newer version: pyoco-client get {run_id}",
        "記録の状態をこのサーバーは知りません[: {status}]。",
        "別のプログラムか新しい版が書いたものです: pyoco-client get {run_id}",
    ),
    WhyCode.UNREADABLE: Text(
        "Its record cannot be read[: {error}][; what can be read of it says {status}].",
        "Another program wrote it, or it is damaged. pyoco-client cancel --run-id {run_id} puts one in its place that "
        "can be read; retention then removes it like others.",
        "記録を読み取れません[ ({error})][。読み取れた範囲での状態: {status}]。",
        "別のプログラムが書いたか、壊れています。pyoco-client cancel --run-id {run_id} で読み取れる記録に置き換わり、"
        "その後は他の実行と同じく保持期間に従って削除されます。",
    ),
}

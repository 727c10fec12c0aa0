"""The sentences of ``check --moving``, in English and Japanese: what was found, and what to do."""

from pyoco_server.model.findings.finding import FindingCode
from pyoco_server.model.text.sentences import Text

_PAGE = "docs/how-to/moving.md"

MOVING_TEXTS: dict[FindingCode, Text] = {
    FindingCode.STORE_EMPTY: Text(
        "Nothing of pyoco is kept here, so there is nothing to move: a start makes all that is needed.",
        "If you expected something, look at the address (--nats-url) and at the names of the buckets in the settings.",
        "ここには pyoco のデータがありません。移行するものはなく、起動時に必要なものがすべて作られます。",
        "データがあるはずなら、アドレス (--nats-url) とバケット名の設定を確認してください。",
    ),
    FindingCode.STORE_OURS: Text(
        "This system has been started here before: the store has all that it needs, or gets it at the next start.",
        "What else stands here is about what the existing system left, and about what of it is still running.",
        "このシステムはすでにここで起動されています。不足しているものは次の起動時に作られます。",
        "以下は、既存システムが残したものと、まだ動作しているものについてです。",
    ),
    FindingCode.STORE_EXISTING: Text(
        "This is a store of the existing system: {streams}. A start keeps all that is in it.",
        f"Make a backup first (pyoco-server backup FILE); {_PAGE} tells the way, and the way back.",
        "既存システムのストアです: {streams}。起動しても中身はすべて残ります。",
        f"先にバックアップしてください (pyoco-server backup FILE)。手順と戻し方は {_PAGE} にあります。",
    ),
    FindingCode.STORE_PARTIAL: Text(
        "Only a part of a store is here: {streams}; what holds the runs and the queue is missing: {missing}.",
        "A start makes it, empty. If it was lost, restore it first; if it has other names, set them (docs/config.md).",
        "ストアの一部しかありません: {streams}。実行とキューを保持するものがありません: {missing}。",
        "起動すると空で作られます。失われたものなら先に復元し、別の名前なら設定してください (docs/config.md)。",
    ),
    FindingCode.STREAMS_TO_MAKE: Text(
        "A start makes what this system has besides: {streams}.",
        "The existing system does not look at them. NATS sets room aside for those that have a limit of bytes.",
        "起動時に、このシステムが追加で使うものを作ります: {streams}。",
        "既存システムはこれらを参照しません。バイト数の上限があるものには、NATS が領域を確保します。",
    ),
    FindingCode.DIRECT_READS_OFF: Text(
        "NATS takes no direct reads of {streams}, as the existing system made them.",
        "A start turns that flag on (allow_direct) and changes nothing else; the existing system works on as before.",
        "既存システムが作った {streams} は、NATS の直接読み取りが無効です。",
        "起動時にこのフラグ (allow_direct) だけを有効にします。既存システムはそのまま動作します。",
    ),
    FindingCode.RIGHT_MISSING: Text(
        "Our user of NATS has not the right to {needed}: {rights}.",
        "Without create or read a gateway does not work here; without update it reads more slowly, and its /ready says "
        "so. docs/how-to/secure-nats.md has the rights.",
        "NATS のユーザーに権限 ({needed}) がありません: {rights}。",
        "create と read がないとゲートウェイは動作しません。update がないと読み取りが遅くなり、/ready に表示されます。"
        "必要な権限は docs/how-to/secure-nats.md にあります。",
    ),
    FindingCode.PAYLOAD_SMALL: Text(
        "NATS takes messages up to {largest}; with these settings one may need {needed}.",
        "Raise max_payload in NATS's configuration, or lower PYOCO_MAX_RUN_SNAPSHOT_BYTES and "
        "PYOCO_WORKFLOW_YAML_MAX_BYTES.",
        "NATS のメッセージの上限は {largest} ですが、この設定では {needed} が必要になることがあります。",
        "NATS の設定で max_payload を上げるか、PYOCO_MAX_RUN_SNAPSHOT_BYTES と PYOCO_WORKFLOW_YAML_MAX_BYTES を"
        "下げてください。",
    ),
    FindingCode.PARTS_LEFT_OUT: Text(
        "What the existing system's 0.7 keeps in {buckets} is not used here ({messages} entries): schedules and "
        "bundles of workflows.",
        "They stay where they are, and a backup of this system leaves them out. Let a gateway of the existing system "
        "run for as long as you need them.",
        "既存システム 0.7 の {buckets} ({messages} 件) はここでは使われません: "
        "スケジュールとワークフローのバンドルです。",
        "データはそのまま残りますが、このシステムのバックアップには含まれません。"
        "必要な間は既存システムのゲートウェイを動かしておいてください。",
    ),
    FindingCode.RUNS_HELD: Text(
        "Runs: {counts}[ (counted among {looked_at} of {of} records)].",
        "All of them are listed and read as before.",
        "実行: {counts}[ ({of} 件のうち {looked_at} 件を数えました)]。",
        "すべてこれまでどおり一覧と取得ができます。",
    ),
    FindingCode.RUNS_UNDER_WAY: Text(
        "Runs that are under way, or wait for their cancel (RUNNING, CANCELLING): {runs}.",
        "Those of a live worker end there. The others begin anew, or are cancelled, when their job is given out again.",
        "進行中または取り消し待ちの実行 (RUNNING, CANCELLING): {runs} 件。",
        "動作中のワーカーのものはそこで終わります。それ以外は、ジョブが再配布されたときにやり直されるか取り消されます。",
    ),
    FindingCode.APPROVALS_WAIT: Text(
        "Runs that wait for an approval (PENDING_APPROVAL): {runs}. They are bundles of the existing system's 0.7.",
        "Approve or reject them there first; here they cannot be.",
        "承認待ちの実行 (PENDING_APPROVAL): {runs} 件。既存システム 0.7 のバンドルです。",
        "先に既存システムで承認または却下してください。ここではできません。",
    ),
    FindingCode.JOBS_QUEUED: Text(
        "Jobs that are queued: {jobs}. By tag: {tags}.",
        "Workers of ours run them with their params. Start one for each tag: pyoco-worker --tags TAG --worker-id NAME",
        "待機中のジョブ: {jobs} 件。タグ別: {tags}。",
        "このシステムのワーカーが元のパラメーターで実行します。"
        "タグごとに起動: pyoco-worker --tags TAG --worker-id NAME",
    ),
    FindingCode.JOBS_UNFIT: Text(
        "Queued jobs that cannot be run here: {jobs}, because {reason}. Runs: {runs}.",
        f"Let a worker of the existing system run them before you move, or submit them anew, mended; {_PAGE} "
        "has what is stricter.",
        "ここでは実行できない待機中のジョブ: {jobs} 件 ({reason})。実行: {runs}。",
        "移行前に既存システムのワーカーで実行するか、直して投入し直してください。"
        f"厳しくなった点は {_PAGE} にあります。",
    ),
    FindingCode.JOBS_BY_NAME: Text(
        "Queued jobs that name a flow and carry none: {jobs}. Flows: {flows}.",
        "Only a worker whose resolver knows these flows runs them: pyoco-worker --flow-resolver MODULE:FUNCTION",
        "フロー名だけを持つ待機中のジョブ: {jobs} 件。フロー: {flows}。",
        "これらのフローを知るリゾルバーのあるワーカーだけが実行できます: pyoco-worker --flow-resolver MODULE:FUNCTION",
    ),
    FindingCode.FLOWS_NOT_PARSED: Text(
        "Queued jobs whose flow was not looked at: {jobs}, after {parsed} different ones.",
        "Run the check again when fewer jobs wait.",
        "フローを調べていない待機中のジョブ: {jobs} 件 ({parsed} 種類まで調べました)。",
        "待機中のジョブが減ってから、もう一度実行してください。",
    ),
    FindingCode.TAGS_UNFIT: Text(
        "Jobs under tags that no worker of ours can serve: {jobs}. Tags: {tags}.",
        "A tag has 1 to 64 letters (a to z), digits, '_' or '-'. Let workers of the existing system run them.",
        "このシステムのワーカーでは扱えないタグのジョブ: {jobs} 件。タグ: {tags}。",
        "タグは半角英数字、'_'、'-' の 1〜64 文字です。既存システムのワーカーで実行してください。",
    ),
    FindingCode.EXISTING_KEYS: Text(
        "API keys of the existing system: {usable} good, {revoked} revoked[, {unreadable} that cannot be read]; "
        "PYOCO_AUTH_PEPPER is {pepper} here[, and no key is asked for (PYOCO_HTTP_AUTH_MODE={mode})].",
        "They are taken as long as PYOCO_AUTH_PEPPER is what it was when they were made. Nobody can tell that without "
        "a key: try one.",
        "既存システムの API キー: 有効 {usable}、失効 {revoked}[、読み取れないもの {unreadable}]。"
        "PYOCO_AUTH_PEPPER ({pepper})[、キーは要求されません (PYOCO_HTTP_AUTH_MODE={mode})]。",
        "PYOCO_AUTH_PEPPER が作成時と同じなら使えます。キーがなければ判定できないので、1つ試してください。",
    ),
    FindingCode.KEYS_ELSEWHERE: Text(
        "API keys of the existing system lie where everything else lies: {usable} good, {revoked} revoked"
        "[, {unreadable} that cannot be read]. Here keys are kept in an account of their own, and these are "
        "not seen.",
        "Make new ones: pyoco-server-admin api-key create --tenant NAME",
        "既存システムの API キー (有効 {usable}、失効 {revoked}[、読み取れないもの {unreadable}]) は"
        "他のデータと同じ場所にあります。ここではキーを専用のアカウントに置くため、これらは使われません。",
        "新しく作ってください: pyoco-server-admin api-key create --tenant NAME",
    ),
    FindingCode.WHEELS_HELD: Text(
        "Wheels that are stored: {wheels}.",
        "Workers with --wheel-sync use them by their tags, beside their own packages and not among them.",
        "保存されている wheel: {wheels} 個。",
        "--wheel-sync を付けたワーカーがタグに従って使います。ワーカー自身のパッケージとは分けて置かれます。",
    ),
    FindingCode.WHEELS_UNFIT: Text(
        "Wheels that are not used here: {wheels}, because {reason}.",
        "Build it anew and upload it under the name that the build gives it: pyoco-client wheel-upload",
        "ここでは使われない wheel: {wheels} ({reason})。",
        "ビルドし直し、ビルドが付けた名前のまま登録してください: pyoco-client wheel-upload",
    ),
    FindingCode.WHEELS_ELSEWHERE: Text(
        "Wheels that are not for this machine and its Python {python}: {wheels}.",
        "A worker with the Python and the platform that they name uses them.",
        "このマシンの Python {python} 向けではない wheel: {wheels}。",
        "名前が示す Python とプラットフォームのワーカーが使います。",
    ),
    FindingCode.WHEEL_ROOM: Text(
        "The store of wheels is {share} full: {used} of {limit}, which the existing system gave to all of "
        "them together.",
        "A start leaves that limit as it is. Delete old wheels, or an upload will be refused: pyoco-client "
        "wheel-delete",
        "wheel の保存領域は {share} 使用中です ({limit} のうち {used})。"
        "上限は既存システムが全体に対して設定したものです。",
        "起動しても上限は変わりません。古い wheel を削除しないと登録が拒否されます: pyoco-client wheel-delete",
    ),
    FindingCode.KEPT_AS_IT_IS: Text(
        "Dead letters: {letters}. Events in the history of wheels: {events}. They are shown as before.",
        "pyoco-client dlq list · pyoco-client wheel-history",
        "デッドレター: {letters} 件、wheel の履歴: {events} 件。これまでどおり表示されます。",
        "pyoco-client dlq list · pyoco-client wheel-history",
    ),
    FindingCode.SETTING_READ_OTHERWISE: Text(
        "{name} means something else here: {reason}.",
        "docs/config.md has every setting.",
        "{name} はここでは意味が異なります: {reason}。",
        "設定の一覧は docs/config.md にあります。",
    ),
    FindingCode.LOOKED_AT_IN_PART: Text(
        "{stream} was read in part: {looked_at} of {of} messages, from all over it.",
        "What is told of it is what these showed. A longer --timeout-sec reads on where the time was too short.",
        "{stream} は一部だけ読みました: {of} 件のうち {looked_at} 件 (全体から均等に)。",
        "報告はその範囲のものです。時間切れの場合は --timeout-sec を長くしてください。",
    ),
}

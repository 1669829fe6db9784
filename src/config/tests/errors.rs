//! What is wrong is told with its line, its key, what is allowed, and what may have been meant.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// Wants exactly these problems, each as line and message.
#[track_caller]
fn wrong(text: &str, wanted: &[(usize, &str)]) {
    let problems = match parse(text) {
        Err(ConfigError::Invalid { problems, .. }) => problems,
        other => panic!("{text}: {other:?}"),
    };
    let found: Vec<_> = problems.iter().map(|p| (p.line.unwrap_or(0), p.message.as_str())).collect();
    assert!(
        found.len() == wanted.len()
            && found
                .iter()
                .zip(wanted)
                .all(|(found, wanted)| found.0 == wanted.0 && found.1.contains(wanted.1)),
        "{text}\nwanted {wanted:#?}\nfound {found:#?}"
    );
}

#[test]
fn unknown_names_are_told_with_what_was_meant() {
    wrong("[video]\nwidht = 640", &[(2, "unknown key `widht` in [video]: did you mean `width`?")]);
    wrong("[slate]\nafter = 500", &[(2, "unknown key `after` in [slate]: did you mean `after_ms`?")]);
    wrong("[animation]\nlatency = 500", &[(2, "did you mean `latency_ms`?")]);
    wrong("[video]\nframerate = 25", &[(2, "did you mean `frame_rate_hz`?")]);
    wrong(
        "[video]\ncolour = 1",
        &[(2, "unknown key `colour` in [video]; it has width, height, frame_rate_hz")],
    );
    wrong("[video]\nsteps = 1", &[(2, "unknown key `steps` in [video]; there is one in [animation]")]);
    wrong("[output.obs]\nkind = 'window'", &[(1, "unknown table [output]: did you mean `outputs`?")]);
    wrong("steps = 4", &[(1, "unknown key `steps` at the top of the file; there is one in [animation]")]);
    wrong("pipelin = 'a'", &[(1, "unknown key `pipelin` at the top of the file: did you mean `pipeline`?")]);
    wrong("[outputs.a]\nkind = 'srt-listner'\nport = 1", &[(2, "did you mean \"srt-listener\"?")]);
    wrong(
        "[log]\ntarget = 'journal'",
        &[(2, "expected one of auto, journald, stderr, not the text \"journal\"")],
    );
}

#[test]
fn wrong_types_and_values_say_what_is_allowed() {
    wrong(
        "[video]\nwidth = '640'",
        &[(2, "[video] width: expected a whole number of pixels from 16 to 8192, not the text \"640\"")],
    );
    wrong("[video]\nwidth = 640.0", &[(2, "not 640.0")]);
    wrong("[video]\nwidth = 8194", &[(2, "from 16 to 8192, not 8194")]);
    wrong("[video]\nwidth = 641", &[(2, "an even number of pixels")]);
    wrong(
        "[video]\nwidth = 99999999999999999999999999999999999999999999",
        &[(2, "from 16 to 8192, not 9999")],
    );
    wrong(
        "[video]\nframe_rate_hz = 0",
        &[(2, "frames a second from 1 to 240, such as 25, 29.97 or \"30000/1001\", not 0")],
    );
    wrong("[video]\nframe_rate_hz = 'fast'", &[(2, "not the text \"fast\"")]);
    wrong(
        "[slate]\nafter_ms = '3s'",
        &[(2, "expected a whole number of milliseconds from 0 to 3600000, not the text \"3s\"")],
    );
    wrong("[slate]\nafter_ms = -1", &[(2, "not -1")]);
    wrong("[animation]\nlambda = nan", &[(2, "a number from 0 to 1, not nan")]);
    wrong("[animation]\nlambda = inf", &[(2, "a number from 0 to 1, not inf")]);
    wrong(
        "[animation]\ndevice = 'gpu'",
        &[(2, "device `gpu` is not known: there are auto, cpu, cuda and cuda:N")],
    );
    wrong("[metrics]\nallow_remote = 1", &[(2, "expected true or false, not 1")]);
    wrong("[gallery]\ndirectories = 'x'", &[(2, "expected a list of paths")]);
    wrong("[gallery]\ndirectories = [1]", &[(2, "expected a path, not 1")]);
    wrong("[control]\nmode = 660", &[(2, "permissions in octal as text, such as \"0660\", not 660")]);
    wrong("[control]\nmode = '0066'", &[(2, "let the owner read and write")]);
    wrong("[log]\nlevel = 'a=b=c'", &[(2, "or a filter such as")]);
    wrong("video = 3", &[(1, "[video] must be a table, not 3")]);
    wrong(
        "[[outputs]]\nkind = 'window'",
        &[(1, "outputs are written as tables with a name: [outputs.NAME]")],
    );
    wrong("[outputs]\nkind = 'window'", &[(2, "[outputs.kind] must be a table, not the text \"window\"")]);
    wrong("[outputs.'a b']\nkind = 'window'", &[(1, "names have 1 to 64 letters, digits, - and _")]);
    wrong("[outputs.poses]\nkind = 'window'", &[(1, "an output cannot be called poses")]);
    assert_eq!(good("[control]\nmode = 0o600").control.mode, 0o600);
}

#[test]
fn keys_of_another_kind_are_refused_and_missing_ones_named() {
    wrong(
        "[sources.a]\nkind = 'file'\npath = 'a'\nurl = 'rtsp://a/b'",
        &[(4, "[sources.a] url: kind `file` does not take it, only rtsp, rtmp do")],
    );
    wrong(
        "[outputs.a]\nkind = 'window'\nbitrate_kbps = 100",
        &[(
            3,
            "kind `window` does not take it, only srt-listener, srt-caller, rtmp, rtsp, udp, recording do",
        )],
    );
    wrong("[sources.a]\nkind = 'rtsp'", &[(1, "[sources.a] of kind `rtsp` needs `url`")]);
    wrong("[sources.a]\npath = 'a'", &[(1, "[sources.a] needs `kind`: one of test-figure, file, v4l2")]);
    wrong(
        "[sources.a]\nkind = 'shm'\nsocket_path = 'a'\nwidth = 64",
        &[(1, "needs `height`"), (1, "needs `frame_rate_hz`")],
    );
    wrong("[sources.a]\nkind = 'rtsp'\nurl = 'rtmp://a/b'", &[(3, "url: expected rtsp://… or rtsps://…")]);
    wrong(
        "[outputs.a]\nkind = 'window'\nwidth = 64",
        &[(3, "has `width` but no `height`: set both or neither")],
    );
}

#[test]
fn addresses_and_urls_are_looked_at() {
    let udp = |address: &str| format!("[outputs.a]\nkind = 'udp'\nport = 5000\naddress = '{address}'");
    wrong(&udp("localhost"), &[(4, "expected an IP address such as \"127.0.0.1\"")]);
    wrong(&udp("127.0.0.1:5000"), &[(4, "(the port goes into `port`)")]);
    let caller = |peer: &str| format!("[outputs.a]\nkind = 'srt-caller'\npeer = '{peer}'");
    for bad in ["host", ":9000", "host:0", "host:70000", "ho st:9000", "srt://host:9000", "::1:9000"] {
        wrong(&caller(bad), &[(3, "expected a host and a port")]);
    }
    for fine in ["studio.example:9000", "10.0.0.1:9000", "[::1]:9000"] {
        good(&caller(fine));
    }
    // What may hold a password is not repeated.
    let error = parse("[outputs.a]\nkind = 'rtmp'\nurl = 'http://u:secret@h/k'").unwrap_err().to_string();
    assert!(
        error.contains("line 3: [outputs.a] url: expected a URL") && !error.contains("secret"),
        "{error}"
    );
    wrong("[control]\nendpoint = 'tcp://127.0.0.1:1'", &[(2, "TCP addresses go into `tcp`")]);
    wrong(&format!("[control]\nendpoint = 'ipc:///{}'", "x".repeat(120)), &[(2, "at most 107 bytes")]);
    wrong(
        "[control]\nendpoint = 'ipc:///a'\ntelemetry_endpoint = 'ipc:///a'",
        &[(3, "must differ from `endpoint`")],
    );
    wrong("[outputs.a]\nkind = 'rtmp'\nurl = 'rtmp://'", &[(3, "expected a URL")]);
}

#[test]
fn what_points_nowhere_is_told_with_what_there_is() {
    wrong(
        "[pipelines.a]\nsource = 'camra'\n[sources.camera]\nkind = 'pipewire'",
        &[(
            2,
            "[pipelines.a] source: there is no source \"camra\"; there are camera (did you mean \"camera\"?)",
        )],
    );
    wrong("[pipelines.a]\nanimation.steps = 1", &[(1, "[pipelines.a] needs `source`")]);
    wrong("pipeline = 'nobody'", &[(1, "there is no pipeline \"nobody\"; there are figure")]);
    wrong("[animation]\nmodel = 'nobody'", &[(2, "[animation] model: no model `nobody`")]);
    wrong("[animation]\nmodel = './none'", &[(2, "/etc/k/./none/model.toml")]);
    let pipelines =
        "[pipelines.figure]\nsource = 'figure'\n[pipelines.b]\nsource = 'figure'\nanimation.steps = 1\n";
    wrong(
        &format!("pipeline = 'b'\n{pipelines}[animation]\nreference = 'nobody'"),
        &[(8, "[animation] reference: there is no picture \"nobody\"")],
    );
    wrong("[animation]\nprompt = 'a dancer'", &[(2, "[animation] prompt: the model mini takes no prompt")]);
    good("[animation]\nprompt = ''");
    wrong("[gallery]\ndirectories = ['~nobody/x']", &[(2, "only ~ alone stands for a home folder")]);
    wrong("[slate]\npicture = 'none.png'", &[(2, "there is no file /etc/k/none.png")]);
    wrong("[slate]\npicture = '~bob/none.png'", &[(2, "only ~ alone stands for a home folder")]);
    wrong(
        "[pipelines.a]\nsource = 'figure'\nanimation.latency = 1",
        &[(3, "unknown key `latency` in [pipelines.a.animation]: did you mean `latency_ms`?")],
    );
}

#[test]
fn two_outputs_do_not_share_what_only_one_can_have() {
    let two = |keys: &str| format!("[outputs.a]\n{keys}\n[outputs.b]\n{keys}");
    for keys in [
        "kind = 'srt-listener'\nport = 9000",
        "kind = 'v4l2'\ndevice = '/dev/video7'",
        "kind = 'udp'\nport = 5000",
        "kind = 'shm'\nsocket_path = '/run/a'",
        "kind = 'pipewire'\nnode_name = 'a'",
        "kind = 'srt-caller'\npeer = 'h:1'",
    ] {
        wrong(&two(keys), &[(4, "is taken by [outputs.a] already")]);
    }
    let source = "[sources.a]\nkind = 'udp'\nport = 5000\n";
    for output in ["kind = 'udp'\nport = 5000", "kind = 'srt-listener'\nport = 5000"] {
        wrong(&format!("{source}[outputs.b]\n{output}"), &[(4, "is taken by [sources.a] already")]);
    }
    wrong(
        "[control]\ntcp = '127.0.0.1:5555'\n[metrics]\nlisten = '127.0.0.1:5555'",
        &[(4, "is taken by [control] tcp already")],
    );
    good(&two("kind = 'recording'\ndirectory = '/tmp'"));
}

#[test]
fn what_is_open_to_the_network_needs_a_token_or_a_word() {
    wrong(
        "[control]\ntcp = '0.0.0.0:5555'",
        &[(2, "can be reached from other machines: that needs `token_file`")],
    );
    wrong("[control]\ntelemetry_tcp = '[::]:5556'", &[(2, "that needs `token_file`")]);
    wrong("[metrics]\nlisten = '0.0.0.0:9464'", &[(2, "say `allow_remote = true` if that is meant")]);
    good(
        "[control]\ntcp = '127.0.0.1:5555'\ntelemetry_tcp = '[::1]:5556'\n[metrics]\nlisten = '127.0.0.1:9464'",
    );
    good("[metrics]\nlisten = '0.0.0.0:9464'\nallow_remote = true");
    wrong(
        "[control]\ntcp = '127.0.0.1:5555'\ntelemetry_tcp = '127.0.0.1:5555'",
        &[(3, "must differ from `tcp`")],
    );
}

#[test]
fn secrets_come_from_private_files() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    let with = |secret: &str, mode| {
        fs::write(&token, secret).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
        let text = "[control]\ntcp = '0.0.0.0:5555'\ntoken_file = 'token'";
        super::super::parse(text, Some(&dir.path().join("k.toml")), &environment()).map_err(|e| e.to_string())
    };
    let config = with("0123456789abcdef\n", 0o600).unwrap();
    assert_eq!(config.control.token, Some(Token("0123456789abcdef".into())));
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
    assert!(
        with("0123456789abcdef", 0o644)
            .is_err_and(|e| e.contains("line 3: [control] token_file: ") && e.contains("chmod o="))
    );
    assert!(with("short", 0o600).is_err_and(|e| e.contains("at least 16 bytes") && !e.contains("short\n")));
    let text = "[outputs.a]\nkind = 'srt-listener'\nport = 1\npassphrase_file = 'token'";
    let passphrase = super::super::parse(text, Some(&dir.path().join("k.toml")), &environment());
    assert!(passphrase.unwrap_err().to_string().contains("10 to 79 bytes, this one has 5"));
}

#[test]
fn all_errors_are_told_at_once_in_the_files_order() {
    let text =
        "[outputs.b]\nkind = 'udp'\nport = 'x'\n[video]\nwidth = 1\n[nosuch]\n[animation]\nlatency = 1";
    wrong(
        text,
        &[
            (3, "[outputs.b] port: expected a whole number from 1 to 65535"),
            (5, "[video] width"),
            (6, "unknown table [nosuch]"),
            (8, "unknown key `latency`"),
        ],
    );
    let shown = parse(text).unwrap_err().to_string();
    assert!(shown.starts_with("/etc/k/k.toml: 4 errors\n  line 3: "), "{shown}");
    let one = parse("[video]\nwidth = 1").unwrap_err().to_string();
    assert!(one.starts_with("/etc/k/k.toml: line 2: [video] width: ") && one.lines().count() == 1, "{one}");
}

#[test]
fn what_is_no_toml_is_told_by_line_alone() {
    wrong("[video\nwidth = 640", &[(1, "this is not TOML: ")]);
    wrong("\n\nwidth == 640", &[(3, "this is not TOML: ")]);
    wrong("[video]\nwidth = 640\nwidth = 640", &[(3, "this is not TOML: duplicate key")]);
    let garbage: String = (0u8..128).map(char::from).collect();
    assert!(parse(&garbage).is_err());
    assert!(parse(&"[".repeat(1 << 19)).is_err());
    assert!(parse(&format!("a = {}", "[".repeat(1 << 19))).is_err());
    assert!(parse(&format!("a = {}", "{b=".repeat(1 << 18))).is_err());
    assert!(parse(&format!("{}1", "a.".repeat(1 << 18))).is_err());
}

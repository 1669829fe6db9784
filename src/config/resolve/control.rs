//! `[control]` and `[metrics]`

use std::{net::SocketAddr, path::Path};

use super::Context;
use crate::config::{
    file,
    kinds::get,
    resolved::{Control, Token},
    table::At,
};

/// Permissions of the sockets' files, unless the file says.
const MODE: u32 = 0o660;
/// Longest path of a socket: the kernel's `sun_path` without the zero at its end.
const LONGEST: usize = 107;
/// Shortest token that is worth guessing at.
const SHORTEST_TOKEN: usize = 16;

/// Sockets of the control plane.
pub fn control(table: &file::Control, context: &mut Context<'_>) -> Control {
    let endpoint = endpoint(&table.endpoint, "endpoint", context).unwrap_or_else(|| {
        format!("ipc://{}", context.environment.socket_dir().join("control.sock").display())
    });
    let telemetry_endpoint = self::endpoint(&table.telemetry_endpoint, "telemetry_endpoint", context)
        .unwrap_or_else(|| beside(&endpoint));
    if endpoint == telemetry_endpoint {
        let line = table.telemetry_endpoint.as_ref().or(table.endpoint.as_ref()).map(|at| at.line);
        context.problems.add(line, "[control] telemetry_endpoint: must differ from `endpoint`");
    }
    if let (Some(tcp), Some(telemetry)) = (&table.tcp, &table.telemetry_tcp)
        && tcp.value == telemetry.value
    {
        context.problems.add(telemetry.line, "[control] telemetry_tcp: must differ from `tcp`");
    }
    for (key, address) in [("tcp", &table.tcp), ("telemetry_tcp", &table.telemetry_tcp)] {
        guarded(key, address, table.token_file.is_some(), context);
    }
    Control {
        endpoint,
        telemetry_endpoint,
        tcp: get(&table.tcp),
        telemetry_tcp: get(&table.telemetry_tcp),
        token: token(table, context),
        mode: get(&table.mode).unwrap_or(MODE),
    }
}

fn endpoint(named: &Option<At<String>>, key: &str, context: &mut Context<'_>) -> Option<String> {
    let named = named.as_ref()?;
    let mut refuse = |why: &str| {
        let message = format!(
            "[control] {key}: expected ipc:// and the path of a socket, not {:?} ({why})",
            named.value
        );
        context.problems.add(named.line, message);
        None
    };
    let Some(path) = named.value.strip_prefix("ipc://") else {
        return refuse("TCP addresses go into `tcp` and `telemetry_tcp`");
    };
    if path.is_empty() || path.ends_with('/') {
        return refuse("it names no file");
    }
    let path = context.path(&Some(At { value: path.into(), line: named.line }))?;
    if path.as_os_str().len() > LONGEST {
        let message =
            format!("[control] {key}: a socket's path has at most {LONGEST} bytes: {}", path.display());
        context.problems.add(named.line, message);
    }
    Some(format!("ipc://{}", path.display()))
}

fn beside(endpoint: &str) -> String {
    let path = Path::new(endpoint.strip_prefix("ipc://").unwrap_or(endpoint));
    format!("ipc://{}", path.with_file_name("telemetry.sock").display())
}

/// Beyond this machine nobody is answered without a token.
fn guarded(key: &str, address: &Option<At<SocketAddr>>, token: bool, context: &mut Context<'_>) {
    let Some(address) = address.as_ref().filter(|at| !at.value.ip().is_loopback()) else { return };
    if !token {
        let message = format!(
            "[control] {key}: {} can be reached from other machines: that needs `token_file`",
            address.value
        );
        context.problems.add(address.line, message);
    }
}

fn token(table: &file::Control, context: &mut Context<'_>) -> Option<Token> {
    let text = context.secret(&table.token_file, &table.place, "token_file")?;
    if text.len() < SHORTEST_TOKEN {
        let line = table.token_file.as_ref().map(|at| at.line);
        let message = format!(
            "[control] token_file: a token has at least {SHORTEST_TOKEN} bytes; `openssl rand -hex 32` makes one"
        );
        context.problems.add(line, message);
    }
    Some(Token(text))
}

/// Address of the Prometheus endpoint. It has no password: that others may read it must be said.
pub fn metrics(
    table: &file::Metrics,
    control: &file::Control,
    context: &mut Context<'_>,
) -> Option<SocketAddr> {
    let listen = table.listen.as_ref()?;
    let others = [("tcp", &control.tcp), ("telemetry_tcp", &control.telemetry_tcp)];
    for (key, other) in others {
        if other.as_ref().is_some_and(|other| other.value == listen.value) {
            let message = format!("[metrics] listen: {} is taken by [control] {key} already", listen.value);
            context.problems.add(listen.line, message);
        }
    }
    if !listen.value.ip().is_loopback() && !get(&table.allow_remote).unwrap_or(false) {
        let message = format!(
            "[metrics] listen: anyone who reaches {} could read it: say `allow_remote = true` if that is meant",
            listen.value
        );
        context.problems.add(listen.line, message);
    }
    Some(listen.value)
}

//! Ports and socket files: free now, or taken by somebody. Sources and outputs try again until theirs is free; without
//! the sockets of the control plane the daemon does not start.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::unix::{fs::FileTypeExt as _, net::UnixStream},
    path::Path,
};

use super::{Findings, may_make};
use crate::config::resolved::{Config, OutputKind, SourceKind};

/// What will be listened on.
pub fn check(config: &Config, findings: &mut Findings) {
    for (name, source) in &config.sources {
        match &source.kind {
            SourceKind::SrtListener { address, .. } | SourceKind::Udp { address } => {
                udp(*address, format!("[sources.{name}] port"), findings);
            }
            _ => {}
        }
    }
    for (name, output) in &config.outputs {
        match &output.kind {
            OutputKind::SrtListener { address, .. } => {
                udp(*address, format!("[outputs.{name}] port"), findings)
            }
            OutputKind::Shm { socket } => {
                if let Err(why) = socket_file(socket) {
                    findings.warning(format!("[outputs.{name}] socket_path"), why + "; it is waited for");
                }
            }
            _ => {}
        }
    }
    let control = &config.control;
    let tcps = [
        ("[control] tcp", control.tcp),
        ("[control] telemetry_tcp", control.telemetry_tcp),
        ("[metrics] listen", config.metrics),
    ];
    for (part, address) in tcps {
        let Some(address) = address else { continue };
        if let Err(error) = TcpListener::bind(address) {
            findings.error(part, taken("TCP", address, &error));
        }
    }
    let endpoints = [
        ("[control] endpoint", &control.endpoint),
        ("[control] telemetry_endpoint", &control.telemetry_endpoint),
    ];
    for (part, endpoint) in endpoints {
        let file = endpoint.strip_prefix("ipc://").map(|path| socket_file(Path::new(path)));
        if let Some(Err(why)) = file {
            findings.error(part, why);
        }
    }
}

fn udp(address: SocketAddr, part: String, findings: &mut Findings) {
    // Several may listen to a multicast group at once.
    if address.ip().is_multicast() {
        return;
    }
    if let Err(error) = UdpSocket::bind(address) {
        findings.warning(part, taken("UDP", address, &error) + "; it is waited for");
    }
}

fn taken(protocol: &str, address: SocketAddr, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => format!("{protocol} port {address} is in use by another program"),
        ErrorKind::PermissionDenied => {
            format!("{protocol} port {address} needs privileges: take one above 1023")
        }
        ErrorKind::AddrNotAvailable => format!("{} is no address of this machine", address.ip()),
        _ => format!("{protocol} port {address} cannot be listened on: {error}"),
    }
}

fn socket_file(path: &Path) -> Result<(), String> {
    let shown = path.display();
    match path.metadata() {
        // A dead daemon's socket is replaced; a live one's is not.
        Ok(file) if file.file_type().is_socket() && UnixStream::connect(path).is_ok() => {
            Err(format!("somebody answers at {shown} already: is a daemon running?"))
        }
        Ok(file) if !file.file_type().is_socket() => Err(format!("{shown} is there and is no socket")),
        _ => may_make(path.parent().unwrap_or(path)),
    }
}

//! `[outputs.NAME]`

use std::{collections::BTreeMap, time::Duration};

use super::{Context, sources::kind};
use crate::config::{
    file,
    kinds::{ANY_OUTPUT, OUTPUTS, get},
    resolved::{Encoder, Output, OutputKind, Source, SourceKind},
};

/// Unless the file says.
const ENCODER: Encoder = Encoder { bitrate_kbps: 4000, key_interval: Duration::from_secs(1) };
/// Taken: telemetry lists the poses' queue beside those of the outputs.
const RESERVED: &str = "poses";

/// All outputs that are switched on. Those that are off are checked, too.
pub fn all(
    outputs: &BTreeMap<String, file::Output>,
    sources: &BTreeMap<String, Source>,
    context: &mut Context<'_>,
) -> BTreeMap<String, Output> {
    let mut all = BTreeMap::new();
    // What each takes for itself alone, and who has it.
    let mut taken: BTreeMap<(String, Option<String>), String> = BTreeMap::new();
    for (name, source) in sources {
        taken.extend(
            places_of(&source.kind).into_iter().map(|place| ((place, None), format!("[sources.{name}]"))),
        );
    }
    for (name, table) in outputs {
        if name == RESERVED {
            context.problems.add(table.place.line, format!("an output cannot be called {RESERVED}"));
        }
        let Some(output) = output(table, context) else { continue };
        if !get(&table.enabled).unwrap_or(true) {
            continue;
        }
        if let Some(place) = place_of(&output.kind)
            && let Some(other) =
                taken.insert((place.clone(), stream_id(&output.kind)), table.place.label.clone())
        {
            let message = format!("{}: {place} is taken by {other} already", table.place.label);
            context.problems.add(table.place.line, message);
        }
        all.insert(name.clone(), output);
    }
    all
}

/// What a source and an output cannot share, in the same words. Sources may share it: one runs at a time.
fn places_of(kind: &SourceKind) -> Vec<String> {
    match kind {
        SourceKind::V4l2 { device, .. } => vec![format!("device {}", device.display())],
        SourceKind::SrtListener { address, .. } => vec![format!("UDP port {}", address.port())],
        // An output there would feed its own animation.
        SourceKind::Udp { address } => {
            vec![format!("UDP port {}", address.port()), format!("destination udp {address}")]
        }
        SourceKind::Shm { socket, .. } => vec![format!("socket {}", socket.display())],
        _ => Vec::new(),
    }
}

fn output(table: &file::Output, context: &mut Context<'_>) -> Option<Output> {
    let retry = context.retry(&table.place, &table.retry_min_ms, &table.retry_max_ms);
    let size = get(&table.width).zip(get(&table.height));
    pair(table, context);
    let kind = kind(OUTPUTS, ANY_OUTPUT, &table.kind, &table.place, &table.set, context)?;
    let kind = (kind.build)(table, context)?;
    let encoder = Encoder {
        bitrate_kbps: get(&table.bitrate_kbps).unwrap_or(ENCODER.bitrate_kbps),
        key_interval: get(&table.key_interval_ms).unwrap_or(ENCODER.key_interval),
    };
    Some(Output { kind, size, encoder, timecode: get(&table.timecode).unwrap_or(false), retry })
}

/// Width and height go together; one that is there but wrong was told.
fn pair(table: &file::Output, context: &mut Context<'_>) {
    let line_of = |key: &str| table.set.iter().find(|(set, _)| *set == key).map(|(_, line)| *line);
    let (has, lacks, line) = match (line_of("width"), line_of("height")) {
        (Some(line), None) => ("width", "height", line),
        (None, Some(line)) => ("height", "width", line),
        _ => return,
    };
    let message = format!("{} has `{has}` but no `{lacks}`: set both or neither", table.place.label);
    context.problems.add(line, message);
}

/// What two outputs cannot share, in words.
fn place_of(kind: &OutputKind) -> Option<String> {
    Some(match kind {
        OutputKind::V4l2 { device } => format!("device {}", device.display()),
        OutputKind::Pipewire { name } => format!("node name {name:?}"),
        OutputKind::SrtListener { address, .. } => format!("UDP port {}", address.port()),
        OutputKind::Udp { address } => format!("destination udp {address}"),
        OutputKind::SrtCaller { peer, .. } => format!("destination srt {peer}"),
        OutputKind::Shm { socket } => format!("socket {}", socket.display()),
        // Recordings are called by their outputs' names, servers tell their publishers apart.
        OutputKind::Recording { .. }
        | OutputKind::Rtmp { .. }
        | OutputKind::Rtsp { .. }
        | OutputKind::Window
        | OutputKind::Fragment { .. } => return None,
    })
}

/// What tells streams to one SRT listener apart. It may be a key: no message repeats it.
fn stream_id(kind: &OutputKind) -> Option<String> {
    match kind {
        OutputKind::SrtCaller { stream_id, .. } => stream_id.clone(),
        _ => None,
    }
}

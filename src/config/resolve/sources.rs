//! `[sources.NAME]`

use std::{collections::BTreeMap, time::Duration};

use super::Context;
use crate::config::{
    file,
    kinds::{ANY_SOURCE, Kind, SOURCES, get},
    resolved::Source,
    suggest,
    table::{At, Place},
};

/// Silence after which a source counts as lost, unless the file says.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Name of the source that is there without any.
const FIGURE: &str = "figure";

/// All sources; without any, the test figure.
pub fn all(sources: &BTreeMap<String, file::Source>, context: &mut Context<'_>) -> BTreeMap<String, Source> {
    if sources.is_empty() {
        let figure = At { value: "test-figure".to_owned(), line: 0 };
        let figure = file::Source { kind: Some(figure), ..file::Source::default() };
        return source(&figure, context).into_iter().map(|figure| (FIGURE.into(), figure)).collect();
    }
    sources.iter().filter_map(|(name, table)| Some((name.clone(), source(table, context)?))).collect()
}

fn source(table: &file::Source, context: &mut Context<'_>) -> Option<Source> {
    let retry = context.retry(&table.place, &table.retry_min_ms, &table.retry_max_ms);
    let kind = kind(SOURCES, ANY_SOURCE, &table.kind, &table.place, &table.set, context)?;
    let kind = (kind.build)(table, context)?;
    Some(Source { kind, timeout: get(&table.timeout_ms).unwrap_or(TIMEOUT), retry })
}

/// Finds the kind that a table names and compares its keys with those that are set.
pub fn kind<T, R>(
    kinds: &'static [Kind<T, R>],
    common: &[&str],
    named: &Option<At<String>>,
    place: &Place,
    set: &[(&'static str, usize)],
    context: &mut Context<'_>,
) -> Option<&'static Kind<T, R>> {
    let names: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
    let Some(named) = named else {
        if !set.iter().any(|(key, _)| *key == "kind") {
            let message = format!("{} needs `kind`: one of {}", place.label, names.join(", "));
            context.problems.add(place.line, message);
        }
        return None;
    };
    let Some(kind) = kinds.iter().find(|kind| kind.name == named.value) else {
        let hint = suggest::closest(&named.value, &names).map(|name| format!(" (did you mean {name:?}?)"));
        let (key, names) = (place.of("kind"), names.join(", "));
        let message =
            format!("{key}: expected one of {names}, not {:?}{}", named.value, hint.unwrap_or_default());
        context.problems.add(named.line, message);
        return None;
    };
    let takes = |kind: &Kind<T, R>, key| kind.needs.contains(&key) || kind.takes.contains(&key);
    for (key, line) in set.iter().filter(|(key, _)| !common.contains(key) && !takes(kind, key)) {
        let who: Vec<_> = kinds.iter().filter(|kind| takes(kind, key)).map(|kind| kind.name).collect();
        let message =
            format!("{}: kind `{}` does not take it, only {} do", place.of(key), kind.name, who.join(", "));
        context.problems.add(*line, message);
    }
    for key in kind.needs.iter().filter(|key| !set.iter().any(|(set, _)| set == *key)) {
        context.missing(place, key, kind.name);
    }
    Some(kind)
}

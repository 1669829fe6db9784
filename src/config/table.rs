//! Reads TOML tables into structs, one key after the other, and notes what is wrong on the way.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{problems::Problems, suggest};

/// A value and the line it stands in.
#[derive(Debug, Clone, PartialEq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Counted from 1.
    pub line: usize,
}

/// Where a table is.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// As it is written: `[sources.camera]`; empty at the top of the file.
    pub label: String,
    /// Of its first key or header, if it is in the file.
    pub line: Option<usize>,
}

impl Place {
    /// Begins a message about `key` here.
    pub fn of(&self, key: &str) -> String {
        if self.label.is_empty() { key.to_owned() } else { format!("{} {key}", self.label) }
    }
}

/// Takes the keys of one table.
pub struct Reader<'a, 'b, 'i> {
    table: &'a DeTable<'i>,
    place: &'a Place,
    problems: &'b mut Problems,
    set: Vec<(&'static str, usize)>,
}

impl<'a, 'b, 'i> Reader<'a, 'b, 'i> {
    pub fn new(table: &'a DeTable<'i>, place: &'a Place, problems: &'b mut Problems) -> Self {
        Self { table, place, problems, set: Vec::new() }
    }

    /// The value of `key`, if it is there and right.
    pub fn take<T>(
        &mut self,
        key: &'static str,
        take: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<At<T>> {
        let value = self.table.get(key)?;
        let line = self.problems.line(&value.span());
        self.set.push((key, line));
        match take(value.get_ref()) {
            Ok(value) => Some(At { value, line }),
            Err(reason) => {
                self.problems.add(line, format!("{}: {reason}", self.place.of(key)));
                None
            }
        }
    }

    /// Notes every key that is not among `known`. Returns those that were taken, right or wrong, with their lines.
    pub fn finish(self, known: &[&str]) -> Vec<(&'static str, usize)> {
        for (key, value) in self.table.iter().filter(|(key, _)| !known.contains(&&**key.get_ref())) {
            let line = self.problems.line(&key.span());
            let message = unknown(self.place, key.get_ref(), value, known);
            self.problems.add(line, message);
        }
        self.set
    }
}

fn unknown(place: &Place, key: &str, value: &Spanned<DeValue<'_>>, known: &[&str]) -> String {
    let shown: String = key.chars().take(64).collect::<String>().escape_debug().to_string();
    let what = match (value.get_ref(), place.label.as_str()) {
        (DeValue::Table(_), "") => format!("unknown table [{shown}]"),
        (_, "") => format!("unknown key `{shown}` at the top of the file"),
        (_, label) => format!("unknown key `{shown}` in {label}"),
    };
    if let Some(meant) = suggest::closest(key, known) {
        return format!("{what}: did you mean `{meant}`?");
    }
    let elsewhere: Vec<_> =
        super::file::SECTIONS.iter().filter(|(_, keys)| keys.contains(&key)).map(|(name, _)| *name).collect();
    match elsewhere.as_slice() {
        [] => format!("{what}; it has {}", known.join(", ")),
        names => format!("{what}; there is one in {}", names.join(" and ")),
    }
}

/// Declares a struct of optional keys, with the rule that takes each, and how to read it.
macro_rules! table {
    ($(#[$meta:meta])* $name:ident { $($(#[$about:meta])* $key:ident: $type:ty = $take:expr,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default)]
        pub struct $name {
            /// Where it was found.
            pub place: $crate::config::table::Place,
            /// Keys that are set, rightly or wrongly, and their lines.
            #[allow(dead_code, reason = "only tables with kinds ask")]
            pub set: Vec<(&'static str, usize)>,
            $($(#[$about])* pub $key: Option<$crate::config::table::At<$type>>,)*
        }

        impl $name {
            /// Names of all keys.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            /// Reads a table.
            pub fn read(
                place: $crate::config::table::Place,
                table: &toml::de::DeTable<'_>,
                problems: &mut $crate::config::problems::Problems,
            ) -> Self {
                let mut reader = $crate::config::table::Reader::new(table, &place, problems);
                $(let $key = reader.take(stringify!($key), $take);)*
                let set = reader.finish(Self::KEYS);
                Self { place, set, $($key),* }
            }

            /// These keys, and those of `base` where these are not set.
            #[allow(dead_code, reason = "only tables that lie over others ask")]
            pub fn or(&self, base: &Self) -> Self {
                let (place, set) = (self.place.clone(), self.set.clone());
                Self { place, set, $($key: self.$key.clone().or_else(|| base.$key.clone())),* }
            }
        }
    };
}
pub(super) use table;

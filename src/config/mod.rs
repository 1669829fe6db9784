//! Configuration of the daemon: the file's form (`file`), and the form that everything runs on (`resolved`).
//!
//! Reading notes everything that is wrong at once, each with its line, and yields either a whole configuration or
//! none.

pub mod check;
mod file;
mod kinds;
pub mod mask;
pub mod picture;
pub mod places;
pub mod problems;
mod resolve;
pub mod resolved;
mod secret;
mod suggest;
mod table;
mod take;

use std::{
    fmt, fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use places::Environment;
use problems::{Problem, Problems};

/// The commented defaults.
pub const DEFAULT: &str = include_str!("default.toml");

/// Longest file, bytes.
const LONGEST: u64 = 1 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("the configuration {} cannot be read: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What is in the way.
        reason: String,
    },
    /// What is in the file does not hold.
    #[error("{}", Listed { file: file.as_deref(), problems })]
    Invalid {
        /// The file; `None` for the built-in defaults.
        file: Option<PathBuf>,
        /// Everything that is wrong, in the file's order; never empty.
        problems: Vec<Problem>,
    },
}

struct Listed<'a> {
    file: Option<&'a Path>,
    problems: &'a [Problem],
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file =
            self.file.map_or_else(|| "the built-in defaults".into(), |file| file.display().to_string());
        match self.problems {
            [only] => write!(f, "{file}: {only}"),
            several => {
                write!(f, "{file}: {} errors", several.len())?;
                several.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

/// Reads and resolves the configuration at `path`. Without a path it is looked for: see [`find`]; where there is none,
/// the built-in defaults are returned.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: Option<&Path>) -> Result<resolved::Config, ConfigError> {
    let environment = Environment::of_process();
    let found = path.map(Path::to_owned).or_else(|| find(&environment));
    match found {
        Some(path) => {
            let path = std::path::absolute(&path).unwrap_or(path);
            let text =
                read(&path).map_err(|reason| ConfigError::Unreadable { file: path.clone(), reason })?;
            parse(&text, Some(&path), &environment)
        }
        None => parse("", None, &environment),
    }
}

/// The configuration that is read if none is named: the user's, then the machine's.
pub fn find(environment: &Environment) -> Option<PathBuf> {
    // One that is there but cannot be read is not passed over.
    environment.files().into_iter().find(|file| file.symlink_metadata().is_ok())
}

/// Resolves the text of a file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(
    text: &str,
    path: Option<&Path>,
    environment: &Environment,
) -> Result<resolved::Config, ConfigError> {
    let mut problems = Problems::new(text);
    let file = file::File::read(text, &mut problems);
    let here = Path::new("/");
    let folder = path.and_then(Path::parent).unwrap_or(here);
    let mut context = resolve::Context { folder, environment, problems: &mut problems };
    let config = resolve::resolve(&file, path, &mut context);
    if problems.is_empty() {
        return Ok(config);
    }
    Err(ConfigError::Invalid { file: path.map(Path::to_owned), problems: problems.into_sorted() })
}

fn read(path: &Path) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if metadata.is_dir() {
        return Err("it is a folder".into());
    }
    if !metadata.is_file() {
        return Err("it is not a regular file".into());
    }
    let too_long = || format!("it is longer than {} KiB", LONGEST >> 10);
    if metadata.len() > LONGEST {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    // It may have grown.
    if bytes.len() as u64 > LONGEST {
        return Err(too_long());
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} is not UTF-8 text")
    })
}

#[cfg(test)]
mod tests;

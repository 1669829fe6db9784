//! The command line.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use base64::Engine as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use keyframed_control::{
    Method,
    message::Params,
    params::{self, Kind},
};
use serde_json::{Value, json};

use crate::{
    client::{Client, Failure},
    endpoint, manual, show, watch,
};

/// Exit code when the daemon refuses.
const REFUSED: u8 = 1;
/// Exit code when no daemon answers. (2 is for a wrong command line.)
const SILENT: u8 = 3;

/// Steers a running keyframed.
#[derive(Debug, Parser)]
#[command(
    name = "keyframedctl",
    version,
    after_help = "Methods can be written as on the wire, too: `keyframedctl params.set lambda=0.02`.\n\
                  Exit codes: 0 done; 1 the daemon refused; 2 wrong command line; 3 no daemon answers."
)]
pub struct Cli {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    command: Command,
}

/// How to reach the daemon, and how to answer.
#[derive(Debug, Args)]
pub struct Options {
    /// Print the result as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Where the daemon is: ipc:///path or tcp://address:port [default: the user's own daemon, then the system's]
    #[arg(long, global = true, env = "KEYFRAMED_ENDPOINT", value_name = "ENDPOINT")]
    pub endpoint: Option<String>,
    /// File with the token that TCP needs
    #[arg(long, global = true, env = "KEYFRAMED_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How long to wait for an answer
    #[arg(long, global = true, default_value_t = 10_000, value_name = "N")]
    pub timeout_ms: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the daemon does: source, outputs, figures
    Status,
    /// Settings of the running pipeline
    #[command(subcommand)]
    Params(ParamsCommand),
    /// The picture that is animated
    #[command(subcommand)]
    Reference(ReferenceCommand),
    /// Configured pipelines
    #[command(subcommand)]
    Pipeline(PipelineCommand),
    /// Stop generating; the output goes on with the last picture
    Pause,
    /// End a pause
    Resume,
    /// Save the present output picture
    Snapshot {
        /// PNG file to write; - for standard output
        #[arg(long, short, value_name = "FILE", required_unless_present = "json")]
        output: Option<PathBuf>,
    },
    /// Read the configuration again and apply what changed
    Reload,
    /// End the daemon
    Shutdown,
    /// About the interface itself
    #[command(subcommand)]
    Rpc(RpcCommand),
    /// Watch rate, latency and events in the terminal; q ends it
    Watch {
        /// Where telemetry is [default: telemetry.sock beside the control socket]
        #[arg(long, env = "KEYFRAMED_TELEMETRY_ENDPOINT", value_name = "ENDPOINT")]
        telemetry_endpoint: Option<String>,
    },
    /// Print the completion script for a shell
    Completions {
        /// Which one
        shell: clap_complete::Shell,
    },
    /// Write man pages and shell completions
    #[command(hide = true)]
    Generate {
        /// Folder to write to
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum ParamsCommand {
    /// Show all settings
    Get,
    /// Change settings, all or none: lambda=0.02 steps=2
    #[command(after_help = settings_help())]
    Set {
        /// Settings to change; `default` gives one back to the model
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = assignment)]
        settings: Vec<(String, String)>,
    },
}

#[derive(Debug, Subcommand)]
enum ReferenceCommand {
    /// Animate another picture: one that `list` shows, or a file in the gallery
    Set {
        /// Name in the list
        #[arg(required_unless_present = "path", conflicts_with = "path")]
        name: Option<String>,
        /// File inside one of the gallery's folders
        #[arg(long, value_name = "FILE")]
        path: Option<PathBuf>,
    },
    /// List the pictures
    List,
}

#[derive(Debug, Subcommand)]
enum PipelineCommand {
    /// List the pipelines
    List,
    /// Run another one
    Switch {
        /// Name in the list
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum RpcCommand {
    /// Print the OpenRPC document of all methods
    Discover,
}

/// `params.set` becomes `params set`: what the command is, and not what an option is given, is looked at.
pub fn undotted(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut out: Vec<OsString> = Vec::new();
    let mut args = args.into_iter();
    out.extend(args.next());
    let mut is_value = false;
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy().into_owned();
        if !is_value && !text.starts_with('-') {
            match text.split_once('.') {
                Some((group, verb)) if text.parse::<Method>().is_ok() => {
                    out.extend([group.into(), verb.into()])
                }
                _ => out.push(arg),
            }
            out.extend(args);
            break;
        }
        is_value = !is_value && matches!(text.as_str(), "--endpoint" | "--token-file" | "--timeout-ms");
        out.push(arg);
    }
    out
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is needed, such as lambda=0.02")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn settings_help() -> String {
    let one = |s: &params::Spec| format!("  {:<19} {}: {}", s.name, s.doc, s.allowed());
    let lines: Vec<String> = params::SETTINGS.iter().map(one).collect();
    format!("Settings:\n{}", lines.join("\n"))
}

/// A setting's text as JSON. What does not fit goes as text: the daemon says what is allowed.
fn value(name: &str, text: &str) -> Value {
    let spec = params::SETTINGS.iter().find(|s| s.name == name);
    match spec.map(|s| (s.kind, s.nullable)) {
        Some((_, true)) if matches!(text, "default" | "null") => Value::Null,
        Some((Kind::Number { .. } | Kind::Integer { .. }, _)) => match serde_json::from_str(text) {
            Ok(number @ Value::Number(_)) => number,
            _ => text.into(),
        },
        _ => text.into(),
    }
}

impl Command {
    /// Method and parameters; `None` for commands that call none.
    fn request(&self) -> Result<Option<(Method, Params)>, Failure> {
        let with = |params: Value| params.as_object().cloned().unwrap_or_default();
        Ok(Some(match self {
            Self::Status => (Method::Status, Params::new()),
            Self::Params(ParamsCommand::Get) => (Method::ParamsGet, Params::new()),
            Self::Params(ParamsCommand::Set { settings }) => {
                let given = settings.iter().map(|(n, v)| (n.clone(), value(n, v))).collect();
                (Method::ParamsSet, given)
            }
            Self::Reference(ReferenceCommand::Set { name: Some(name), .. }) => {
                (Method::ReferenceSet, with(json!({"name": name})))
            }
            Self::Reference(ReferenceCommand::Set { path, .. }) => {
                let path = absolute(path.as_deref().unwrap_or(Path::new("")))?;
                (Method::ReferenceSet, with(json!({"path": path})))
            }
            Self::Reference(ReferenceCommand::List) => (Method::ReferenceList, Params::new()),
            Self::Pipeline(PipelineCommand::List) => (Method::PipelineList, Params::new()),
            Self::Pipeline(PipelineCommand::Switch { name }) => {
                (Method::PipelineSwitch, with(json!({"name": name})))
            }
            Self::Pause => (Method::Pause, Params::new()),
            Self::Resume => (Method::Resume, Params::new()),
            Self::Snapshot { .. } => (Method::Snapshot, Params::new()),
            Self::Reload => (Method::Reload, Params::new()),
            Self::Shutdown => (Method::Shutdown, Params::new()),
            Self::Rpc(RpcCommand::Discover) => (Method::Discover, Params::new()),
            Self::Watch { .. } | Self::Completions { .. } | Self::Generate { .. } => return Ok(None),
        }))
    }
}

/// The daemon has another working directory.
fn absolute(path: &Path) -> Result<String, Failure> {
    let path = std::path::absolute(path).map_err(|e| Failure::Here(format!("{}: {e}", path.display())))?;
    path.into_os_string().into_string().map_err(|path| Failure::Here(format!("{path:?} is not UTF-8")))
}

impl Options {
    /// Finds the daemon and connects.
    pub async fn connect(&self) -> Result<Client, Failure> {
        let endpoint = endpoint::find(self.endpoint.as_deref()).map_err(Failure::Silent)?;
        Client::connect(endpoint, self.token()?, Duration::from_millis(self.timeout_ms.max(1))).await
    }

    /// What `--token-file` holds.
    pub fn token(&self) -> Result<Option<String>, Failure> {
        let Some(file) = &self.token_file else { return Ok(None) };
        let text = fs::read_to_string(file)
            .map_err(|e| Failure::Here(format!("the token cannot be read from {}: {e}", file.display())))?;
        Ok(Some(text.trim().to_owned()))
    }
}

impl Cli {
    /// Carries the command out; what went wrong is printed.
    pub async fn run(self) -> ExitCode {
        match self.carry_out().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("keyframedctl: {failure}");
                match failure {
                    Failure::Refused(_) | Failure::Here(_) => REFUSED.into(),
                    Failure::Silent(_) => SILENT.into(),
                }
            }
        }
    }

    async fn carry_out(&self) -> Result<(), Failure> {
        let Some((method, params)) = self.command.request()? else { return self.without_method().await };
        let result = self.options.connect().await?.call(method, params).await?;
        if let Command::Snapshot { output: Some(file) } = &self.command {
            save(file, &result)?;
            if file == Path::new("-") {
                return Ok(());
            }
        }
        let json = self.options.json || method == Method::Discover;
        print(&if json { pretty(&result) } else { show::result(method, &result) })
    }

    async fn without_method(&self) -> Result<(), Failure> {
        match &self.command {
            Command::Watch { telemetry_endpoint } => {
                watch::run(&self.options, telemetry_endpoint.as_deref()).await
            }
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Self::command(), "keyframedctl", &mut script);
                print(&String::from_utf8_lossy(&script))
            }
            Command::Generate { output } => manual::write(Self::command(), output)
                .map_err(|e| Failure::Here(format!("writing to {}: {e}", output.display()))),
            _ => Ok(()),
        }
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn save(file: &Path, snapshot: &Value) -> Result<(), Failure> {
    let encoded = snapshot["png_base64"].as_str().unwrap_or_default();
    let png = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(|e| Failure::Here(format!("the daemon's picture cannot be read: {e}")))?;
    let written = if file == Path::new("-") { io::stdout().write_all(&png) } else { fs::write(file, &png) };
    written.map_err(|e| Failure::Here(format!("{} cannot be written: {e}", file.display())))
}

/// A reader that has gone away (`| head`) is no error.
pub fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Here(format!("standard output: {e}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn dotted_names_are_commands() {
        let split = |line: &str| {
            undotted(line.split(' ').map(OsString::from)).join(" ".as_ref()).into_string().unwrap()
        };
        assert_eq!(split("ctl params.set lambda=0.1"), "ctl params set lambda=0.1");
        assert_eq!(split("ctl --json rpc.discover"), "ctl --json rpc discover");
        assert_eq!(split("ctl --endpoint params.set status"), "ctl --endpoint params.set status");
        assert_eq!(split("ctl reference set params.get"), "ctl reference set params.get");
        assert_eq!(split("ctl params.gte"), "ctl params.gte");
    }

    #[test]
    fn every_method_has_a_command() {
        let lines = [
            "status",
            "params.get",
            "params.set seed=1",
            "reference.set ada",
            "reference.list",
            "pipeline.list",
            "pipeline.switch x",
            "pause",
            "resume",
            "snapshot --output x.png",
            "reload",
            "shutdown",
            "rpc.discover",
        ];
        let methods: Vec<Method> = lines
            .iter()
            .map(|line| {
                let args = ["keyframedctl"].into_iter().chain(line.split(' ')).map(OsString::from);
                Cli::try_parse_from(undotted(args)).unwrap().command.request().unwrap().unwrap().0
            })
            .collect();
        assert_eq!(methods, Method::ALL);
    }

    #[test]
    fn settings_have_the_types_of_the_table() {
        assert_eq!(value("lambda", "0.02"), json!(0.02));
        assert_eq!(value("steps", "default"), json!(null));
        assert_eq!(value("seed", "18446744073709551615"), json!(u64::MAX));
        assert_eq!(value("max_quality", "warp"), json!("warp"));
        assert_eq!(value("lambda", "much"), json!("much"));
        assert_eq!(value("seed", "default"), json!("default"), "it has no default of the model's");
    }
}

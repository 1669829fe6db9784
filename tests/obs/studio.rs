//! A real OBS on a screen of its own, with a configuration of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::client::Client;
use crate::common::{
    daemon::{PATIENCE, free_tcp_port},
    installed,
};

/// Keeps OBS from asking questions on its first start.
const GLOBAL: &str = "\
[General]
FirstRun=true
EnableAutoUpdates=false

[Basic]
Profile=keyframed
ProfileDir=keyframed
SceneCollection=keyframed
SceneCollectionFile=keyframed

[OBSWebSocket]
FirstLoad=false
ServerEnabled=true
ServerPort=PORT
AlertsEnabled=false
AuthRequired=false
";

const PROFILE: &str = "\
[General]
Name=keyframed

[Video]
BaseCX=960
BaseCY=360
OutputCX=960
OutputCY=360
FPSCommon=30
";

/// OBS and its screen; both end with it.
pub struct Studio {
    pub client: Client,
    obs: Child,
    screen: Child,
    display: String,
    home: PathBuf,
}

impl Studio {
    /// Starts OBS in the folder `home`. `None`, with a word, where it is not installed.
    #[track_caller]
    pub fn start(home: PathBuf) -> Option<Self> {
        for program in ["obs", "Xvfb"] {
            if !installed(program) {
                eprintln!("skipped: {program} is not installed");
                return None;
            }
        }
        let port = free_tcp_port();
        configure(&home, port);
        let (screen, display) = screen();
        let obs = Command::new("obs")
            .args(["--multi", "--collection", "keyframed", "--profile", "keyframed", "--scene", "Scene"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH")?)
            .env("HOME", &home)
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .env("DISPLAY", &display)
            .env("LIBGL_ALWAYS_SOFTWARE", "1")
            .env("QT_QPA_PLATFORM", "xcb")
            .stdin(Stdio::null())
            .stdout(fs::File::create(home.join("obs.log")).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let client = loop {
            if let Some(client) = Client::connect(address) {
                break client;
            }
            assert!(started.elapsed() < PATIENCE, "OBS does not answer: {}", log(&home));
            std::thread::sleep(Duration::from_millis(100));
        };
        Some(Self { client, obs, screen, display, home })
    }

    /// Leaves a picture of the whole screen in the folder that `KEYFRAMED_SHEETS` names, if it names one.
    pub fn photograph(&self) {
        let Some(folder) = std::env::var_os("KEYFRAMED_SHEETS") else { return };
        let path = Path::new(&folder).join("obs-window.png");
        let taken =
            Command::new("import").args(["-window", "root", "-display", &self.display]).arg(path).status();
        if !taken.is_ok_and(|status| status.success()) {
            eprintln!("no picture of the screen: ImageMagick's import is not installed");
        }
    }

    /// What OBS has said so far.
    pub fn log(&self) -> String {
        log(&self.home)
    }
}

impl Drop for Studio {
    fn drop(&mut self) {
        for child in [&mut self.obs, &mut self.screen] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn log(home: &Path) -> String {
    fs::read_to_string(home.join("obs.log")).unwrap_or_default()
}

fn configure(home: &Path, port: u16) {
    let studio = home.join("config/obs-studio");
    let profile = studio.join("basic/profiles/keyframed");
    fs::create_dir_all(&profile).unwrap();
    fs::DirBuilder::new().mode(0o700).create(home.join("run")).unwrap();
    fs::write(studio.join("global.ini"), GLOBAL.replace("PORT", &port.to_string())).unwrap();
    fs::write(profile.join("basic.ini"), PROFILE).unwrap();
}

/// A screen without a monitor, and its name.
fn screen() -> (Child, String) {
    let mut screen = Command::new("Xvfb")
        .args(["-displayfd", "1", "-screen", "0", "1100x760x24", "-nolisten", "tcp"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut number = String::new();
    BufReader::new(screen.stdout.take().unwrap()).read_line(&mut number).unwrap();
    (screen, format!(":{}", number.trim()))
}

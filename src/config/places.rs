//! Where things are when the file does not say: the search path of configurations, sockets, `~`.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Where the configuration of the machine lies.
pub const SYSTEM_FILE: &str = "/etc/keyframed/keyframed.toml";

/// What of the environment decides.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `HOME`
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`
    pub config_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`
    pub runtime_dir: Option<PathBuf>,
    /// `RUNTIME_DIRECTORY`: the folder that systemd made for the unit.
    pub unit_dir: Option<PathBuf>,
    /// User.
    pub uid: u32,
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        let path = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        // systemd separates several by colons.
        let first = |name: &str| env::split_paths(&env::var_os(name)?).find(|path| path.is_absolute());
        Self {
            home: path("HOME"),
            config_home: path("XDG_CONFIG_HOME"),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            unit_dir: first("RUNTIME_DIRECTORY"),
            uid: rustix::process::geteuid().as_raw(),
        }
    }

    /// Configurations in the order they are looked for.
    pub fn files(&self) -> Vec<PathBuf> {
        let own = self.config_home.clone().or_else(|| self.home.as_ref().map(|home| home.join(".config")));
        let own = own.map(|dir| dir.join("keyframed/keyframed.toml"));
        own.into_iter().chain([SYSTEM_FILE.into()]).collect()
    }

    /// Folder of the sockets.
    pub fn socket_dir(&self) -> PathBuf {
        let of_user = || self.runtime_dir.as_ref().map(|dir| dir.join("keyframed"));
        let shared = || env::temp_dir().join(format!("keyframed-{}", self.uid));
        self.unit_dir.clone().or_else(of_user).unwrap_or_else(shared)
    }

    /// `path` as the file at `folder` means it: `~` is the home folder, and what is relative begins at `folder`.
    ///
    /// # Errors
    /// If there is no home, or another user's is asked for.
    pub fn complete(&self, path: &Path, folder: &Path) -> Result<PathBuf, String> {
        let shown = path.display();
        match path.components().next().and_then(|first| first.as_os_str().to_str()) {
            Some("~") => match &self.home {
                Some(home) => {
                    Ok(path.strip_prefix("~").map_or_else(|_| home.clone(), |rest| home.join(rest)))
                }
                None => Err(format!("{shown}: there is no home folder here (HOME is not set)")),
            },
            Some(first) if first.starts_with('~') => {
                Err(format!("{shown}: only ~ alone stands for a home folder; write the path out"))
            }
            _ => Ok(folder.join(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        Environment { home: Some("/home/ada".into()), uid: 7, ..Environment::default() }
    }

    #[test]
    fn the_users_file_comes_before_the_machines() {
        let mut environment = environment();
        let files = |environment: &Environment| {
            environment.files().iter().map(|f| f.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(files(&environment), ["/home/ada/.config/keyframed/keyframed.toml", SYSTEM_FILE]);
        environment.config_home = Some("/c".into());
        assert_eq!(files(&environment), ["/c/keyframed/keyframed.toml", SYSTEM_FILE]);
        assert_eq!(files(&Environment::default()), [SYSTEM_FILE]);
    }

    #[test]
    fn sockets_lie_where_systemd_says_then_with_the_user() {
        let mut environment = environment();
        assert_eq!(environment.socket_dir(), env::temp_dir().join("keyframed-7"));
        environment.runtime_dir = Some("/run/user/7".into());
        assert_eq!(environment.socket_dir(), Path::new("/run/user/7/keyframed"));
        environment.unit_dir = Some("/run/keyframed".into());
        assert_eq!(environment.socket_dir(), Path::new("/run/keyframed"));
    }

    #[test]
    fn paths_begin_at_home_or_at_the_files_folder() {
        let complete = |path: &str| environment().complete(Path::new(path), Path::new("/etc/k"));
        assert_eq!(complete("~/a b").as_deref(), Ok(Path::new("/home/ada/a b")));
        assert_eq!(complete("~").as_deref(), Ok(Path::new("/home/ada")));
        assert_eq!(complete("a.png").as_deref(), Ok(Path::new("/etc/k/a.png")));
        assert_eq!(complete("/a.png").as_deref(), Ok(Path::new("/a.png")));
        assert!(complete("~bob/a").is_err_and(|e| e.contains("~bob")));
        assert!(Environment::default().complete(Path::new("~/a"), Path::new("/")).is_err());
    }
}

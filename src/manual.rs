//! Man pages and shell completions, from the command line's own definition.

use std::{fs, io, path::Path};

use clap_complete::Shell;

/// Writes the pages of `command` and of its subcommands, and completions for bash, zsh and fish, into `folder`.
///
/// # Errors
/// The folder cannot be made or written to.
pub fn write(mut command: clap::Command, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, &name, folder)?;
    }
    clap_mangen::generate_to(command, folder)
}

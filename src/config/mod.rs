//! Configuration of the daemon: the file's form (`file`), and the form that everything runs on (`resolved`).

pub mod resolved;

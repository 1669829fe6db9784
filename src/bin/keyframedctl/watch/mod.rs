//! `keyframedctl watch`: a dashboard in the terminal.

mod feed;
mod screen;
mod state;

use std::{io::IsTerminal as _, time::Duration};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use self::state::State;
use crate::{cli::Options, client::Failure};

/// How often keys are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Shows the dashboard until `q` or Ctrl-C. A daemon that goes away is waited for.
///
/// # Errors
/// There is no terminal.
pub async fn run(options: &Options, telemetry: Option<&str>) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() {
        let why = "watch needs a terminal; scripts get the same by `keyframedctl status --json` or telemetry";
        return Err(Failure::Here(why.into()));
    }
    // Asked for once, so that a token file that is missing is said before the screen is taken.
    options.token()?;
    let (sender, receiver) = mpsc::channel(64);
    let mut terminal = ratatui::try_init().map_err(|e| Failure::Here(format!("the terminal: {e}")))?;
    let shown = tokio::select! {
        shown = show(&mut terminal, receiver) => shown,
        () = feed::run(options, telemetry, sender) => Ok(()),
    };
    ratatui::restore();
    shown.map_err(|e| Failure::Here(format!("the terminal: {e}")))
}

async fn show(terminal: &mut DefaultTerminal, mut news: mpsc::Receiver<state::News>) -> std::io::Result<()> {
    let mut state = State::default();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stale = true;
    loop {
        if std::mem::take(&mut stale) {
            terminal.draw(|frame| screen::draw(frame, &state))?;
        }
        tokio::select! {
            Some(news) = news.recv() => {
                state.take(news);
                stale = true;
            }
            _ = tick.tick() => {
                while event::poll(Duration::ZERO)? {
                    let event = event::read()?;
                    if is_quit(&event) {
                        return Ok(());
                    }
                    stale = true;
                }
            }
        }
    }
}

fn is_quit(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (ctrl_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

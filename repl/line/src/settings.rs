//! What the program's entry knows and the face needs.

use std::path::PathBuf;
use std::time::Duration;

use vmrepl_session::{Input, InputRequest, Session};

use crate::picture::Inline;

/// Reads a line: the request, and what shows its prompt.
pub type AskLine = Box<dyn Fn(&InputRequest, &mut dyn FnMut()) -> Input>;

/// What surrounds the face.
pub struct Settings {
    /// Where lines are kept across runs.
    pub history: PathBuf,
    /// Where pictures go that the terminal cannot show.
    pub pictures: PathBuf,
    /// Whether the terminal shows colours.
    pub colours: bool,
    /// How the terminal shows pictures, as far as its environment tells.
    pub inline: Option<Inline>,
    /// Told of each new session: whom Ctrl-C is for.
    pub aim: Box<dyn Fn(&Session)>,
    /// Told before each cell: presses of Ctrl-C in the past are forgotten.
    pub rearm: Box<dyn Fn()>,
    /// Reads the line that a cell asks for. It calls its second argument, which shows the prompt, once the line
    /// may be typed: a password's echo is off by then.
    pub input: AskLine,
    /// How long a session with a name may stand unused before its machine is given back; none for ever.
    pub idle: Option<Duration>,
    /// Asks a question; the default is yes.
    pub ask: Box<dyn Fn(&str) -> bool>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("history", &self.history)
            .field("pictures", &self.pictures)
            .field("colours", &self.colours)
            .field("inline", &self.inline)
            .finish_non_exhaustive()
    }
}

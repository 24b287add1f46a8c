//! Shows what a cell says: the only place that writes to the terminal.

use std::io::{self, Write};

use vmrepl_session::{Bundle, Event, Input, InputRequest, Sink, Table, table_size};

use crate::colour::{DIM, RED, RESET};
use crate::picture::Picture;
use crate::sanitise::Sanitiser;
use crate::settings::Settings;

/// The terminal, as far as it is written to.
pub(crate) struct Screen<'a> {
    out: &'a mut dyn Write,
    settings: &'a Settings,
    /// The two outputs are cut into events apart from each other, so each has its own filter.
    stdout: Sanitiser,
    stderr: Sanitiser,
    /// The number of the cell that speaks.
    cell: u64,
    at_line_start: bool,
    failed: Option<io::Error>,
}

impl<'a> Screen<'a> {
    pub(crate) fn new(out: &'a mut dyn Write, settings: &'a Settings) -> Self {
        Self {
            out,
            settings,
            stdout: Sanitiser::default(),
            stderr: Sanitiser::default(),
            cell: 0,
            at_line_start: true,
            failed: None,
        }
    }

    /// A new cell begins: what the last one left open is forgotten.
    pub(crate) fn begin(&mut self, cell: u64) {
        self.stdout = Sanitiser::default();
        self.stderr = Sanitiser::default();
        self.cell = cell;
        self.at_line_start = true;
    }

    /// The cell has ended: the prompt needs a line and a colour of its own.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if !self.at_line_start {
            self.put(b"\n");
        }
        if self.settings.colours {
            self.put(RESET.as_bytes());
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Our own words, or the guest's, as lines.
    pub(crate) fn say(&mut self, text: &str) {
        let clean = Sanitiser::default().filter(text.as_bytes());
        self.put(&clean);
        if !text.ends_with('\n') {
            self.put(b"\n");
        }
    }

    /// A remark that steps back behind what the code says.
    pub(crate) fn remark(&mut self, text: &str) {
        self.coloured(DIM, text);
    }

    /// What went wrong.
    pub(crate) fn trouble(&mut self, text: &str) {
        self.coloured(RED, text);
    }

    fn coloured(&mut self, colour: &str, text: &str) {
        let colours = self.settings.colours;
        if colours {
            self.put(colour.as_bytes());
        }
        let clean = Sanitiser::default().filter(text.trim_end().as_bytes());
        self.put(&clean);
        if colours {
            self.put(RESET.as_bytes());
        }
        self.put(b"\n");
    }

    fn put(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        if bytes != RESET.as_bytes() {
            self.at_line_start = *last == b'\n';
        }
        if let Err(error) = self.out.write_all(bytes).and_then(|()| self.out.flush()) {
            self.failed.get_or_insert(error);
        }
    }

    fn bundle(&mut self, bundle: &Bundle) {
        if let Some(table) = bundle.table() {
            return self.table(&table);
        }
        let text = bundle.text().unwrap_or("");
        let picture = bundle
            .get_str("image/png")
            .and_then(Picture::png)
            .or_else(|| bundle.get_str("image/svg+xml").map(Picture::svg));
        match picture {
            Some(picture) => self.picture(&picture, text),
            None => self.say(text),
        }
    }

    fn picture(&mut self, picture: &Picture, text: &str) {
        let inline = self.settings.inline.and_then(|how| picture.inline(how));
        if let Some(bytes) = inline {
            return self.put(bytes.as_bytes());
        }
        if !text.is_empty() {
            self.say(text);
        }
        let size = picture.size().map_or_else(String::new, |(width, height)| {
            format!(" ({width} x {height})")
        });
        match picture.save(&self.settings.pictures, self.cell) {
            Ok(path) => self.remark(&format!("picture{size}: {}", path.display())),
            Err(error) => self.trouble(&format!(
                "could not save the picture to {}: {error}",
                self.settings.pictures.display()
            )),
        }
    }

    fn table(&mut self, table: &Table) {
        self.say(&table.preview);
        self.remark(&table_size(table));
    }
}

impl Sink for Screen<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Stdout(output) => {
                let clean = self.stdout.filter(output.as_bytes());
                self.put(&clean);
            }
            Event::Stderr(output) => {
                let clean = self.stderr.filter(output.as_bytes());
                self.put(&clean);
            }
            Event::Result(shown) | Event::Display(shown) => {
                if !self.at_line_start {
                    self.put(b"\n");
                }
                self.bundle(&shown.bundle);
            }
            Event::Error(raised) => {
                if !self.at_line_start {
                    self.put(b"\n");
                }
                // The last line says what happened.
                let text = raised.traceback.trim_end();
                let (before, last) = text.rsplit_once('\n').unwrap_or(("", text));
                if !before.is_empty() {
                    self.say(before);
                }
                self.trouble(last);
            }
            Event::Table(_) | Event::InputRequest(_) | Event::Done(_) | Event::Unknown => {}
        }
    }

    fn input(&mut self, request: &InputRequest) -> Input {
        let clean = self.stdout.filter(request.prompt.as_bytes());
        let settings = self.settings;
        let input = (settings.input)(request, &mut || self.put(&clean));
        // The person's own Enter ended the line.
        self.at_line_start = true;
        input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            history: "/nowhere".into(),
            pictures: "/nowhere".into(),
            colours: false,
            inline: None,
            aim: Box::new(|_| ()),
            rearm: Box::new(|| ()),
            input: Box::new(|_, _| Input::End),
            idle: None,
            ask: Box::new(|_| false),
        }
    }

    fn event(line: &str) -> Event {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn guests_do_not_steer_the_terminal() {
        let settings = settings();
        let mut bytes = Vec::new();
        let mut screen = Screen::new(&mut bytes, &settings);
        screen.begin(1);
        for line in [
            r#"{"type":"stdout","text":"a\u001b]52;c;"}"#,
            r#"{"type":"stderr","text":"b"}"#,
            r#"{"type":"stdout","text":"x\u0007c"}"#,
            r#"{"type":"result","data":{"text/plain":"\u001b]0;t\u0007r"},"metadata":{}}"#,
            r#"{"type":"error","name":"E","value":"v","traceback":"T\nE: \u001bP1\u001b\\v\n"}"#,
        ] {
            screen.event(&event(line));
        }
        screen.end().unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), "abc\nr\nT\nE: v\n");
    }

    #[test]
    fn a_prompt_gets_a_line_of_its_own() {
        let settings = settings();
        let mut bytes = Vec::new();
        let mut screen = Screen::new(&mut bytes, &settings);
        screen.begin(1);
        screen.event(&event(r#"{"type":"stdout","text":"no newline"}"#));
        screen.end().unwrap();
        assert_eq!(bytes, b"no newline\n");
    }
}

//! Whom a program runs as: a line of `/etc/passwd`.

use std::path::PathBuf;

use super::Defaults;
use crate::environment::Person;
use crate::spawn::Identity;

/// A user as programs see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) identity: Identity,
    /// The name, home and shell; none on a host, where they are those of whoever started the agent.
    pub(crate) person: Option<Person>,
}

impl Account {
    /// Finds the user that a request names, by name or number; without a name the one that cells run as.
    pub(crate) fn find(wish: Option<&str>, defaults: &Defaults) -> Result<Self, String> {
        let Some(person) = &defaults.person else {
            return match wish {
                None => Ok(Self {
                    identity: Identity::Same,
                    person: None,
                }),
                Some(wish) => Err(format!("user {wish}: without a machine there is one user")),
            };
        };
        let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        match (wish, defaults.identity) {
            (Some(wish), _) => parse(&text, wish),
            // The recipe may have broken the file: whoever asks for nothing gets on without it.
            (None, identity) => Ok(Self {
                identity,
                person: Some(person.clone()),
            }),
        }
    }
}

/// `name:password:user:group:comment:home:shell`.
fn parse(text: &str, wish: &str) -> Result<Account, String> {
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let user = fields.nth(1)?;
        if name != wish && user != wish {
            return None;
        }
        let (user, group) = (user.parse().ok()?, fields.next()?.parse().ok()?);
        let home = PathBuf::from(fields.nth(1)?);
        let shell = fields.next().filter(|shell| !shell.is_empty());
        Some(Account {
            identity: match user {
                0 => Identity::Root,
                user => Identity::User { user, group },
            },
            person: Some(Person {
                name: name.to_owned(),
                home,
                shell: shell.unwrap_or("/bin/sh").to_owned(),
            }),
        })
    });
    found.ok_or_else(|| format!("user {wish}: no such user in the guest's /etc/passwd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let text = "root:x:0:0:root:/root:/bin/bash\nbroken:x\nwww:x:33:34:www:/var/www:\n";
        let root = parse(text, "0").unwrap();
        assert_eq!(root.identity, Identity::Root);
        let www = parse(text, "www").unwrap();
        let (user, group) = (33, 34);
        assert_eq!(www.identity, Identity::User { user, group });
        let person = www.person.unwrap();
        assert_eq!(
            (person.name.as_str(), person.shell.as_str()),
            ("www", "/bin/sh")
        );
        for wish in ["broken", "", "nobody", "34"] {
            let message = format!("user {wish}: no such user in the guest's /etc/passwd");
            assert_eq!(parse(text, wish), Err(message));
        }
    }
}

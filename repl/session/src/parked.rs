//! A session whose machine has been given back: all of it is stored, its name is held, and it can be woken.

use std::time::Instant;

use crate::cell_limits::Limits;
use crate::error::SessionError;
use crate::fresh::{Begin, Order};
use crate::pool::Way;
use crate::session::Session;
use crate::standing::Lasting;

/// A session without a machine.
#[derive(Debug)]
pub struct Parked {
    order: Order,
    limits: Limits,
    lasting: Lasting,
}

impl Session {
    /// Stores what is not stored yet and ends the machine. Nothing happens to a session without a name, which would be
    /// lost, and to one whose state cannot be stored: it comes back as it is.
    ///
    /// # Errors
    /// The session itself.
    pub fn park(mut self) -> Result<Parked, Box<Self>> {
        if self.store_now().is_err() {
            return Err(Box::new(self));
        }
        let Some(lasting) = self.lasting.take() else {
            return Err(Box::new(self));
        };
        Ok(Parked {
            order: self.order.clone(),
            limits: self.limits,
            lasting,
        })
    }
}

impl Parked {
    /// The number of the next cell.
    #[must_use]
    pub fn next_number(&self) -> u32 {
        self.lasting.next_number()
    }

    /// Restores the machine where the session stands.
    ///
    /// The calling thread must outlive the session.
    ///
    /// # Errors
    /// When the checkpoint cannot be restored; the session then stays parked.
    pub fn wake(self) -> Result<Session, (Box<Self>, SessionError)> {
        let began = Instant::now();
        let mut order = self.order.clone();
        order.at = Some(self.lasting.at);
        let made = order
            .fill(None, Begin::Running)
            .and_then(|fresh| Session::begin(order, fresh, Way::Nothing, began));
        match made {
            Ok(mut session) => {
                session.limits = self.limits;
                session.lasting = Some(self.lasting.awake(&session.machine));
                Ok(session)
            }
            Err(error) => Err((Box::new(self), error)),
        }
    }
}

//! Puts the local terminal into raw mode and restores its modes on every way out.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};

use nix::errno::Errno;
use nix::sys::termios::{
    self, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices, Termios,
};
use nix::unistd::{getpgrp, tcgetpgrp};

/// A terminal in raw mode until this is dropped: every byte passes unchanged in both directions.
///
/// A panic restores the modes as well, before its message is written. Only the modes that raw mode
/// changes are restored, so changes by other processes to the rest are kept.
#[derive(Debug)]
pub(crate) struct RawMode(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    terminal: File,
    /// The modes before raw mode; none while they are in effect.
    saved: Option<Termios>,
}

impl RawMode {
    /// Puts the terminal into raw mode, through a duplicate of the descriptor that stays blocking.
    pub(crate) fn enter(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = File::from(terminal.as_fd().try_clone_to_owned()?);
        let mut state = State { terminal, saved: None };
        state.enter()?;
        let state = Arc::new(Mutex::new(state));
        restore_at_panic(Arc::downgrade(&state));
        Ok(Self(state))
    }

    /// Enters raw mode again after [`Self::leave`], or after a shell has set its own modes while
    /// this process was stopped.
    pub(crate) fn enter_again(&self) -> io::Result<()> {
        lock(&self.0).enter()
    }

    /// Restores the modes before raw mode.
    pub(crate) fn leave(&self) {
        lock(&self.0).leave();
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.leave();
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    // A poisoned lock is usable: setting modes twice does no harm.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn enter(&mut self) -> io::Result<()> {
        let modes = termios::tcgetattr(&self.terminal)?;
        let raw = made_raw(&modes);
        if self.saved.is_some() && raw == modes {
            return Ok(());
        }
        set(&self.terminal, &raw)?;
        self.saved = Some(modes);
        Ok(())
    }

    fn leave(&mut self) {
        let Some(saved) = self.saved.take() else { return };
        // If a shell has taken the terminal back, the modes are its own.
        if tcgetpgrp(&self.terminal).is_ok_and(|foreground| foreground != getpgrp()) {
            return;
        }
        // A terminal that has gone has no modes to restore.
        let Ok(mut modes) = termios::tcgetattr(&self.terminal) else { return };
        put_back(&mut modes, &saved);
        let _ = set(&self.terminal, &modes);
    }
}

fn input_flags() -> InputFlags {
    InputFlags::IGNBRK
        | InputFlags::BRKINT
        | InputFlags::PARMRK
        | InputFlags::ISTRIP
        | InputFlags::INLCR
        | InputFlags::IGNCR
        | InputFlags::ICRNL
        | InputFlags::IXON
        | InputFlags::IXANY
        | InputFlags::IXOFF
}

fn local_flags() -> LocalFlags {
    LocalFlags::ECHO
        | LocalFlags::ECHONL
        | LocalFlags::ICANON
        | LocalFlags::ISIG
        | LocalFlags::IEXTEN
}

/// VMIN and VTIME: a read returns with the first byte, at once.
const READING: [(SpecialCharacterIndices, u8); 2] =
    [(SpecialCharacterIndices::VMIN, 1), (SpecialCharacterIndices::VTIME, 0)];

/// Returns the modes of termios(3) for raw mode. Speed and character size stay as they are.
fn made_raw(modes: &Termios) -> Termios {
    let mut raw = modes.clone();
    raw.input_flags.remove(input_flags());
    raw.output_flags.remove(OutputFlags::OPOST);
    raw.local_flags.remove(local_flags());
    for (index, value) in READING {
        raw.control_chars[index as usize] = value;
    }
    raw
}

/// Reverts [`made_raw`] in modes that other processes may have changed meanwhile.
fn put_back(modes: &mut Termios, saved: &Termios) {
    modes.input_flags = (modes.input_flags - input_flags()) | saved.input_flags & input_flags();
    modes.output_flags =
        (modes.output_flags - OutputFlags::OPOST) | saved.output_flags & OutputFlags::OPOST;
    modes.local_flags = (modes.local_flags - local_flags()) | saved.local_flags & local_flags();
    for (index, _) in READING {
        modes.control_chars[index as usize] = saved.control_chars[index as usize];
    }
}

/// Sets modes at once (TCSANOW): draining the output could wait for ever for a terminal that is not
/// read. A background process is stopped here by SIGTTOU, and continues in the foreground.
fn set(terminal: &File, modes: &Termios) -> io::Result<()> {
    loop {
        match termios::tcsetattr(terminal, SetArg::TCSANOW, modes) {
            Err(Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

/// The terminals that a panic restores.
static AT_PANIC: Mutex<Vec<Weak<Mutex<State>>>> = Mutex::new(Vec::new());

fn restore_at_panic(state: Weak<Mutex<State>>) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            for state in lock(&AT_PANIC).iter().filter_map(Weak::upgrade) {
                // The thread that holds the lock may be the one that panics; its guard then
                // restores the modes while the stack unwinds.
                if let Ok(mut state) = state.try_lock() {
                    state.leave();
                }
            }
            previous(panic);
        }));
    });
    let mut states = lock(&AT_PANIC);
    states.retain(|state| state.strong_count() > 0);
    states.push(state);
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use nix::pty::openpty;

    use super::*;

    fn terminal() -> (OwnedFd, OwnedFd) {
        let pty = openpty(None, None).unwrap();
        (pty.master, pty.slave)
    }

    fn modes(terminal: &OwnedFd) -> Termios {
        termios::tcgetattr(terminal).unwrap()
    }

    #[test]
    fn raw_is_raw_and_leaving_restores() {
        let (_master, slave) = terminal();
        let before = modes(&slave);
        let raw = RawMode::enter(&slave).unwrap();
        let inside = modes(&slave);
        assert!(!inside.local_flags.intersects(local_flags()));
        assert!(!inside.input_flags.intersects(input_flags()));
        assert!(!inside.output_flags.contains(OutputFlags::OPOST));
        assert_eq!(inside.control_flags, before.control_flags);
        raw.leave();
        assert_eq!(modes(&slave), before);
        raw.enter_again().unwrap();
        assert_eq!(modes(&slave), inside);
        drop(raw);
        assert_eq!(modes(&slave), before);
    }

    #[test]
    fn every_byte_passes_both_ways() {
        use std::io::{Read, Write};
        let (master, slave) = terminal();
        let _raw = RawMode::enter(&slave).unwrap();
        let (mut master, mut slave) = (File::from(master), File::from(slave));
        let all: Vec<u8> = (0..=255).collect();
        let mut arrived = [0; 256];
        master.write_all(&all).unwrap();
        slave.read_exact(&mut arrived).unwrap();
        assert_eq!(arrived.to_vec(), all);
        slave.write_all(&all).unwrap();
        master.read_exact(&mut arrived).unwrap();
        assert_eq!(arrived.to_vec(), all);
    }

    #[test]
    fn what_others_changed_meanwhile_stays() {
        let (_master, slave) = terminal();
        let before = modes(&slave);
        let raw = RawMode::enter(&slave).unwrap();
        let mut changed = modes(&slave);
        changed.local_flags ^= LocalFlags::TOSTOP;
        changed.control_chars[SpecialCharacterIndices::VINTR as usize] = 0x18;
        set(&File::from(slave.try_clone().unwrap()), &changed).unwrap();
        drop(raw);
        let after = modes(&slave);
        assert_eq!(after.local_flags, before.local_flags ^ LocalFlags::TOSTOP);
        assert_eq!(after.control_chars[SpecialCharacterIndices::VINTR as usize], 0x18);
        assert_eq!(after.input_flags, before.input_flags);
    }

    #[test]
    fn a_shell_that_put_in_its_modes_is_honoured_and_undone() {
        let (_master, slave) = terminal();
        let raw = RawMode::enter(&slave).unwrap();
        let inside = modes(&slave);
        // As a shell does when its job stopped, and a user with stty.
        let mut shells = modes(&slave);
        shells.local_flags |= LocalFlags::ICANON | LocalFlags::ISIG;
        set(&File::from(slave.try_clone().unwrap()), &shells).unwrap();
        raw.enter_again().unwrap();
        assert_eq!(modes(&slave), inside);
        drop(raw);
        assert_eq!(modes(&slave), shells);
    }

    #[test]
    fn a_panic_restores_before_it_unwinds() {
        let (_master, slave) = terminal();
        let before = modes(&slave);
        let raw = RawMode::enter(&slave).unwrap();
        let panicked = std::thread::spawn(|| panic!("what a defect would do")).join();
        assert!(panicked.is_err());
        // The panic hook restored it; nothing was dropped yet.
        assert_eq!(modes(&slave), before);
        drop(raw);
        assert_eq!(modes(&slave), before);
    }

    #[test]
    fn what_is_no_terminal_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(RawMode::enter(&file).unwrap_err().raw_os_error(), Some(Errno::ENOTTY as i32));
    }
}

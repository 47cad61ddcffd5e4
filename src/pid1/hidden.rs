//! What PID 1 knows is its own. Its environment, which the runtime made, has the superuser's password, and its memory the
//! passwords and the token. By default every process of the same user may read both (`/proc/1/environ`, `/proc/1/mem`,
//! ptrace), and PostgreSQL is one: to `COPY … FROM PROGRAM` it is a line.

/// Keeps other processes of this user out of this one, and its memory out of core dumps (`PR_SET_DUMPABLE` in prctl(2),
/// proc(5)). A program that is executed begins without it, so it is nobody's but the manager's.
pub fn hide() {
    // Refused for no value that this is: there is nothing to be done about it, and nothing that depends on it.
    let _ = nix::sys::prctl::set_dumpable(false);
}

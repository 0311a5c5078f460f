import { useConnectBank } from "@strongroom/react";
import { useEffect } from "react";
import { api, type Bank } from "./api";
import { opener } from "./bankLinks";
import { linkWords } from "./words";

/** How long it is said that a bank is connected. */
const SAID_MILLIS = 5_000;

interface ConnectBankProps {
  bank: Bank;
  user: string;
  strongroomUrl: string;
  /** The list of connections has changed. */
  onChange: () => void;
  /** For the repair of a connection by connecting the same login once more: its id. */
  instead?: string;
}

/** The button, and what becomes of the link. */
export function ConnectBank({ bank, user, strongroomUrl, onChange, instead }: ConnectBankProps) {
  const { state, open, reset } = useConnectBank({
    baseUrl: strongroomUrl,
    name: instead ?? bank.id,
    // A function: the backend makes a session when the user clicks, and one more if that has run out meanwhile.
    session: () => api.connectSession(bank.id),
    open: opener(bank, user, api.linkToken),
  });
  // `pending` is in the list as well, and so is what was refused: the list is read again after each answer.
  useEffect(() => {
    if (["pending", "connected", "needs-relink"].includes(state.status)) onChange();
  }, [state.status, onChange]);
  // The list shows it from now on; what is said here would be wrong once the user disconnects.
  useEffect(() => {
    if (state.status !== "connected") return;
    const timer = setTimeout(reset, SAID_MILLIS);
    return () => clearTimeout(timer);
  }, [state.status, reset]);

  const words = linkWords(state);
  const busy = words?.tone === "busy";
  return (
    <div className="connect">
      {/* Not `disabled`, which would drop the focus of a keyboard user; a second click does nothing. */}
      <button type="button" className="primary" aria-disabled={busy} onClick={open}>
        {instead ? "Log in again" : `Connect through ${bank.name}`}
      </button>
      <p className={`status ${words?.tone ?? ""}`} role="status">
        {words?.text}
      </p>
    </div>
  );
}

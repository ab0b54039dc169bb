// The password of a document, entered where its state is shown.

import { useRef } from "preact/hooks";
import { call } from "../api.ts";
import type { Document } from "../types.ts";
import { attempt, Dialog, toast } from "../ui/basics.tsx";

export function PasswordDialog({ document, onClose, onSent }: { document: Document; onClose: () => void; onSent: () => void }) {
  const field = useRef<HTMLInputElement>(null);
  const submit = async (event: Event) => {
    event.preventDefault();
    const password = field.current!.value;
    if (!password) return;
    if (await attempt(() => call("POST", `/jobs/${document.job_id}/retry`, { json: { password } }))) {
      toast(`${document.name} is read with the password.`);
      onSent();
      onClose();
    }
  };
  return (
    <Dialog heading={`Password of ${document.name}`} onClose={onClose}>
      <form onSubmit={submit}>
        <label for="document-password">Password of the file</label>
        <input ref={field} id="document-password" type="password" autocomplete="off" autoFocus required />
        <p class="hint">The server forgets it as soon as the file is read.</p>
        <div class="dialog-foot"><button type="submit" class="primary">Read the file</button></div>
      </form>
    </Dialog>
  );
}

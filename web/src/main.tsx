// The entry: small, so that the first requests are sent before the code of the page has arrived.

import "./early.ts";
import "./style.css";

void import("./start.tsx");

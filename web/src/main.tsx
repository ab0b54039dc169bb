import { render } from "preact";
import { App, fetchCurrentView } from "./app.tsx";
import "./style.css";

const root = document.getElementById("app")!;
const show = () => {
  root.replaceChildren();
  render(<App />, root);
};
// A view whose code is there asks for its data before the first paint. One that could not be fetched says so itself.
fetchCurrentView().then(show, show);

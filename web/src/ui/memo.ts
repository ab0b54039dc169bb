// Keeps what a component has rendered while its properties count as the same.

import { Component, h, type FunctionComponent } from "preact";

export function memo<P extends object>(of: FunctionComponent<P>, same: (before: P, after: P) => boolean): FunctionComponent<P> {
  class Memo extends Component<P> {
    override shouldComponentUpdate(next: P) {
      return !same(this.props as P, next);
    }
    override render() {
      return h(of as FunctionComponent, this.props as object);
    }
  }
  return Memo as unknown as FunctionComponent<P>;
}

/** Everything in one process, on the embedded broker and store. */

import { failures } from './failures.js';
import { scenarios } from './scenarios.js';

scenarios('embedded');
failures('embedded');

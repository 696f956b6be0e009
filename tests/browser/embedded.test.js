/** Everything in one process, on the embedded broker and store. */

import { scenarios } from './scenarios.js';

scenarios('embedded');

/** Everything in one process, on the embedded broker and store. */

import { admin } from './admin.js';
import { chat } from './chat.js';
import { failures } from './failures.js';
import { media } from './media.js';
import { rooms } from './rooms.js';

rooms('embedded');
media();
failures('embedded');
chat('embedded');
admin('embedded');

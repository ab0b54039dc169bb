"""Write the API's description, from which the types of the page are made."""

import json
import sys

from api.app import create_app
from shared.settings import Settings

sys.stdout.write(json.dumps(create_app(Settings()).extensions["openapi"].document))
